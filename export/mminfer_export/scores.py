"""What a model's scores are: known from the graph's last operators (`ending.py`), else said by the user.

They are never guessed: a second softmax or sigmoid over probabilities gives numbers that look right (0.91 becomes
0.71), and comparing engines cannot show it. Where the operators do not tell, the scores of varied tiles must fit what
was said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.head import softmax
from melanoma_infer.errors import BundleError, UsageError
from melanoma_infer.runtime.plural import plural
from mminfer_export.ending import Ending

Said = Literal["logits", "probabilities"]
Kind = Literal["logits", "one-logit", "probabilities", "one-probability"]
"""(N, K) logits; (N, 1), the logit of the second of two classes; (N, K) probabilities; (N, 1), P(second class)."""
SUM_WITHIN = 1e-3
"""Relative, of a row of probabilities."""
ROUNDING = 1e-6


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


@dataclass(frozen=True)
class Seen:
    """What is seen of a model's scores."""

    values: NDArray[Any]
    """(N, columns), the model's own, for the sample tiles."""
    ending: Ending
    """Of its graph."""
    varied: Callable[[], tuple[NDArray[Any], NDArray[Any]]]
    """Its scores for varied tiles, and for such far outside the range of pixels; asked for if the ending is unknown."""


def check_scores(seen: Seen, kind: Kind, option: Callable[[str], str]) -> None:
    """Raise unless the scores of tiles, the graph's last operators and `kind` agree.

    Args:
        seen: of the model.
        kind: what its scores are said to be.
        option: how the user says "logits" or "probabilities".

    Raises:
        UsageError: they contradict each other, or are independent probabilities.
        BundleError: a score is NaN or infinite.
    """
    values, ending = seen.values, seen.ending
    if not np.isfinite(values).all():
        raise BundleError("The model's scores have NaN or infinity for a sample tile. Correct the model.")
    stretched = values[:0]
    if ending.kind == "unknown":
        ordinary, stretched = seen.varied()
        values = np.concatenate([values, ordinary])
    if ending.kind == "sigmoid" and not kind.startswith("one-") and not are_probabilities(values):
        raise UsageError(f"The model ends with a Sigmoid for each of {values.shape[1]} classes: {INDEPENDENT}")
    if ending.kind == "sorted":
        raise UsageError(
            f"The model ends with {ending.node.op_type if ending.node else 'a sort'}: it gives its highest scores, "
            "whatever class they are of. Let it return the scores of all classes, in the order of the card's `classes`."
        )
    _refuse_one_column_of_softmax(values, kind, ending)
    if kind in ("logits", "one-logit"):
        _refuse_probabilities(values, kind, ending, option)
        if ending.kind == "unknown":
            _refuse_unlike_logits(values, stretched, option)
    else:
        _check_probabilities(values, kind, ending, option)


INDEPENDENT = (
    "independent probabilities, which do not sum to 1. A bundle's classes exclude one another. Give two classes in the "
    "card, and let the model return (N, 1), the probability of the malignant one."
)


def _refuse_one_column_of_softmax(values: NDArray[Any], kind: Kind, ending: Ending) -> None:
    """Raise where a softmax sees one value only, and where one column holds the logarithm of a probability."""
    one, logarithm = kind.startswith("one-"), ending.node is not None and ending.node.op_type in ("LogSoftmax", "Log")
    if ending.kind == "softmax" and (values == 1).all():
        where = "column, which is always 1. Export it without that." if one else "value, always 1. Correct its axis."
        raise UsageError(f"The model ends with a Softmax over one {where}")
    if logarithm and (values == 0).all():
        raise UsageError("The model ends with a LogSoftmax over one value, so each score is 0. Correct its axis.")
    if logarithm and one:
        raise UsageError(
            "The model gives the logarithm of one probability: neither a logit nor a probability. Let it return "
            "the scores of both classes, or the probability."
        )


def _refuse_probabilities(values: NDArray[Any], kind: Kind, ending: Ending, option: Callable[[str], str]) -> None:
    one = kind == "one-logit"
    if ending.kind in ("softmax", "sigmoid") or (are_probabilities(values) and not one):
        raise UsageError(
            f"The scores were said to be logits, but the model already returns probabilities ({_shown_by(ending)}): a "
            f"second {'sigmoid' if one else 'softmax'} would flatten them. Use {option('probabilities')}."
        )


def _refuse_unlike_logits(values: NDArray[Any], stretched: NDArray[Any], option: Callable[[str], str]) -> None:
    """Raise if scores (N, columns) of varied tiles have a range that only probabilities have, `stretched` too."""
    one = values.shape[1] == 1
    everything = np.concatenate([values, stretched])
    low, high, sums = everything.min(), everything.max(), values.sum(1)
    said = f"use {option('probabilities')}"
    if low == high:  # such as a classifier whose last layer is still zero
        return
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        like = (
            f"like probabilities: a second sigmoid would flatten them. Instead {said}."
            if one
            else f"like {INDEPENDENT}"
        )
    elif low >= -ROUNDING and not one and np.ptp(sums) <= SUM_WITHIN * sums.max():
        like = f"like probabilities times {sums.mean():.4g}. Divide by that in the model, and {said}."
    elif low >= -ROUNDING and high <= 100 * (1 + ROUNDING):
        like = f"like percentages. Divide by 100 in the model, and {said}."
    elif one and low >= -1 - ROUNDING and high <= 1 + ROUNDING:
        like = f"like a tanh. Let the model return (x + 1) / 2, and {said}, if it was trained so."
    elif one and (low >= -ROUNDING or high <= ROUNDING):
        like = "unlike logits, which have both signs."
    else:
        return
    raise UsageError(
        f"The scores were said to be logits, but on {len(everything)} tiles, among them black, white and noise, they "
        f"are {low:.3g} to {high:.3g}, {like} If they are logits, let the model return what its last linear layer "
        "gives."
    )


def _check_probabilities(values: NDArray[Any], kind: Kind, ending: Ending, option: Callable[[str], str]) -> None:
    one = kind == "one-probability"
    if ending.kind == "logits":
        raise UsageError(
            f"The model's scores are not probabilities: {_shown_by(ending)}. Use {option('logits')}, so that the "
            f"{'sigmoid' if one else 'softmax'} is added."
        )
    if not (_within_0_and_1(values) if one else are_probabilities(values)):
        rule = "must be within 0 and 1" if one else "each row must be within 0 and 1 and sum to 1"
        percent = values.min() >= 0 and 1 < values.max() <= 100 * (1 + ROUNDING)
        raise UsageError(
            f"The model's scores are not probabilities: {rule}, but they are {values.min():.3g} to {values.max():.3g}. "
            + ("If they are percentages, divide by 100 in the model. " if percent else "")
            + f"Use {option('logits')} if they are logits; else correct the model."
        )
    if ending.kind == "unknown" and np.isin(values, (0, 1)).all():
        raise UsageError(
            f"Each score of {len(values)} tiles is exactly 0 or 1: these are class numbers, not probabilities. Let the "
            "model return its scores, without argmax, rounding or a comparison."
        )


def _shown_by(ending: Ending) -> str:
    return "on every sample tile" if ending.node is None else f"it ends with {ending.node.op_type}"


def are_probabilities(values: NDArray[Any]) -> bool:
    """Whether every row (N, K) is within 0 and 1 and sums to 1, to SUM_WITHIN."""
    return _within_0_and_1(values) and bool(np.abs(values.sum(1) - 1).max() <= SUM_WITHIN)


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
