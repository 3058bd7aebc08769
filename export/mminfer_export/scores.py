"""What a model's scores are: known from the graph's last operators (`ending.py`), else said by the user.

They are never guessed from their values: a second softmax or sigmoid over probabilities gives numbers that look right
(0.91 becomes 0.71), and comparing engines cannot show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.head import softmax
from melanoma_infer.errors import UsageError
from melanoma_infer.runtime.plural import plural
from mminfer_export.ending import Ending

Said = Literal["logits", "probabilities"]
Kind = Literal["logits", "one-logit", "probabilities", "one-probability"]
"""(N, K) logits; (N, 1), the logit of the second of two classes; (N, K) probabilities; (N, 1), P(second class)."""


def said_by(ending: Ending, option: Callable[[str], str]) -> Said:
    """What the graph itself says that its scores are.

    Raises:
        UsageError: its last operators do not say it.
    """
    if ending.kind == "unknown":
        raise UsageError(
            "The model's last operators do not show what its scores are. Say it: "
            f"{option('logits')} if a softmax or sigmoid is still missing, {option('probabilities')} if not."
        )
    return "logits" if ending.kind == "logits" else "probabilities"


def kind_of(values: NDArray[Any], classes: int, said: Said) -> Kind:
    """What scores (N, columns) are, if they are `said`.

    Raises:
        UsageError: their number is not that of the classes.
    """
    columns = values.shape[1]
    if columns == classes:
        return said
    if columns == 1 and classes == 2:
        return "one-logit" if said == "logits" else "one-probability"
    raise UsageError(
        f"The model gives {plural(columns, 'score')} for each tile; the card names {classes} classes. Correct the "
        "card's `classes`, or let the model give (N, K), one column for each class in their order"
        + (", or (N, 1), the second class's." if classes == 2 else ".")
    )


def check_scores(values: NDArray[Any], kind: Kind, ending: Ending, option: Callable[[str], str]) -> None:
    """Raise unless the scores (N, columns) of sample tiles, the graph's last operators and `kind` agree.

    Args:
        values: the model's own scores.
        kind: what they are said to be.
        ending: of the graph.
        option: how the user says "logits" or "probabilities".

    Raises:
        UsageError: they contradict each other, or are independent probabilities.
    """
    one = kind.startswith("one-")
    summing = are_probabilities(values)
    if ending.kind == "sigmoid" and not one and not summing:
        raise UsageError(
            f"The model ends with a Sigmoid for each of {values.shape[1]} classes: independent probabilities, which do "
            "not sum to 1. A bundle's classes exclude one another. Give two classes in the card, and let the model "
            "return (N, 1), the probability of the malignant one."
        )
    if ending.kind == "softmax" and one and (values == 1).all():
        raise UsageError("The model ends with a Softmax over one column, which is always 1. Export it without that.")
    if kind in ("logits", "one-logit"):
        if ending.kind in ("softmax", "sigmoid") or (summing and not one):
            raise UsageError(
                f"The scores were said to be logits, but the model already returns probabilities ({_seen(ending)}): a "
                f"second {'sigmoid' if one else 'softmax'} would flatten them. Use {option('probabilities')}."
            )
        return
    if ending.kind == "logits":
        raise UsageError(
            f"The model's scores are not probabilities: {_seen(ending)}. Use {option('logits')}, so that the "
            f"{'sigmoid' if one else 'softmax'} is added."
        )
    if not (_within_0_and_1(values) if one else summing):
        rule = "must be within 0 and 1" if one else "each row must be within 0 and 1 and sum to 1"
        raise UsageError(
            f"The model's scores are not probabilities: {rule}, but they are {values.min():.3g} to {values.max():.3g}. "
            f"Use {option('logits')} if they are logits; else correct the model."
        )


def _seen(ending: Ending) -> str:
    return "on every sample tile" if ending.node is None else f"it ends with {ending.node.op_type}"


def are_probabilities(values: NDArray[Any]) -> bool:
    """Whether every row (N, K) is within 0 and 1 and sums to 1, to 1e-3."""
    return _within_0_and_1(values) and bool(np.abs(values.sum(1) - 1).max() <= 1e-3)


def _within_0_and_1(values: NDArray[Any]) -> bool:
    return bool((values >= 0).all() and (values <= 1).all())


def probabilities(scores: NDArray[Any], kind: Kind) -> NDArray[np.float32]:
    """Probabilities (N, K) of the model's scores, computed in float64."""
    values: NDArray[np.float64] = scores.astype(np.float64)
    match kind:
        case "logits":
            values = softmax(values)
        case "one-logit":
            values = softmax(np.concatenate([np.zeros_like(values), values], axis=1))
        case "one-probability":
            values = np.concatenate([1 - values, values], axis=1)
    return values.astype(np.float32)
