"""Patients → training, validation and test: every class in the same proportions, a patient in one part only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.labels import SPLITS, LabelledSlide, LabelledTile, Split, rank
from melanoma_infer.datasets.placing import hashed
from melanoma_infer.errors import UsageError

OUTCOMES = (None, False, True)


def split_shares(text: str) -> tuple[float, ...]:
    """The shares of training, validation and test in a text such as "64,16,20".

    Raises:
        UsageError: it is not three numbers that make 100, or nothing is left for the training.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != len(SPLITS) or not (min(shares) >= 0 and abs(sum(shares) - 100) < 1e-6 and shares[0]):
        raise UsageError(f"--split {text}: give three percentages that make 100, for {', '.join(SPLITS)}: 64,16,20")
    return tuple(share / 100 for share in shares)


def split_of_cases(
    rows: Iterable[LabelledTile | LabelledSlide], shares: Sequence[float], card: ModelCard, *, seed: int
) -> Mapping[str, Split]:
    """The split of each case.

    Cases are sorted by their highest class, then by outcome, then by a hash of seed and id. Each in turn goes to the
    split that is furthest behind its share, so that the whole has the shares to within one case, and each class and
    outcome to within two. Neither the order of the rows nor the number of tiles of a case changes anything.

    Args:
        rows: tiles and slides.
        shares: of training, validation and test; they make 1.
        card: orders the classes.
        seed: another one gives another split.
    """
    highest: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        outcome = OUTCOMES.index(row.outcome if isinstance(row, LabelledTile) else None)
        kind = (*rank(row.label, card), outcome)
        highest[row.case_id] = max(highest.get(row.case_id, kind), kind)
    order = sorted(highest, key=lambda case: (highest[case], hashed(f"{seed}/{case}")))
    given = [0] * len(shares)
    split: dict[str, Split] = {}
    for number, case in enumerate(order, start=1):
        behind = [share * number - count for share, count in zip(shares, given, strict=True)]
        part = behind.index(max(behind))
        given[part] += 1
        split[case] = SPLITS[part]
    return split
