"""A threshold on scores, set on labelled cases, with its interval.

A threshold is the middle between two neighbouring scores, so that no case of those it is set on is exactly on it. Two
rules choose which two:

- Youden's: the largest sensitivity + specificity − 1; of several, where the gap between the two scores is widest.
- a target: the highest threshold whose sensitivity is at least the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import UsageError
from melanoma_infer.evaluation.bootstrap import Rows, interval, patient_bootstrap

Bools = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class SetThreshold:
    """A threshold, its 95 % interval by patient bootstrap, and what it was set on."""

    value: float
    low: float
    high: float
    positive: int
    negative: int
    rule: str
    """In words: "by Youden's index"."""


def youden(positive: Bools, scores: Scores) -> float:
    """The threshold with the largest sensitivity + specificity − 1; NaN without both classes or with one score only."""
    cuts, sensitivity, specificity = _operating_points(positive, scores)
    if not len(cuts):
        return math.nan
    index = sensitivity + specificity
    best = np.flatnonzero(index >= index.max() - 1e-12)
    return float(_middle(cuts[best[np.argmax(cuts[best, 1] - cuts[best, 0])]]))


def at_sensitivity(positive: Bools, scores: Scores, target: float) -> float:
    """The highest threshold whose sensitivity is at least `target`; NaN as for `youden`.

    The lowest score if every threshold between two scores misses too many.
    """
    cuts, sensitivity, _ = _operating_points(positive, scores)
    if not len(cuts):
        return math.nan
    enough = np.flatnonzero(sensitivity >= target)
    return float(_middle(cuts[enough[-1]])) if len(enough) else float(scores.min())


def set_threshold(
    positive: Bools, scores: Scores, patients: Sequence[str], *, sensitivity: float | None = None
) -> SetThreshold:
    """The threshold by Youden's index or, if a sensitivity is given, for that target; and its interval.

    Args:
        positive: (N,), whether each case is malignant.
        scores: (N,), a case is suspected from the threshold on.
        patients: (N,), whose case it is; the bootstrap draws patients.
        sensitivity: the target, in (0, 1].

    Raises:
        UsageError: the cases are all of one kind, or have all the same score.
    """

    def value(rows: Rows) -> float:
        if sensitivity is None:
            return youden(positive[rows], scores[rows])
        return at_sensitivity(positive[rows], scores[rows], sensitivity)

    found = value(np.arange(len(scores)))
    malignant = int(positive.sum())
    if math.isnan(found):
        raise UsageError(
            f"A threshold cannot be set on {malignant} malignant and {len(scores) - malignant} other cases: it needs "
            "both kinds, and scores that differ."
        )
    low, high = interval(patient_bootstrap(value, patients)) or (found, found)
    rule = "by Youden's index" if sensitivity is None else f"for a sensitivity of at least {sensitivity:g}"
    return SetThreshold(found, min(low, found), max(high, found), malignant, len(scores) - malignant, rule)


def _operating_points(positive: Bools, scores: Scores) -> tuple[NDArray[np.float64], Scores, Scores]:
    """Neighbouring scores (C, 2), rising, and sensitivity and specificity (C,) of a threshold between them."""
    distinct = np.unique(scores)
    if len(distinct) < 2 or positive.all() or not positive.any():
        return np.empty((0, 2)), np.empty(0), np.empty(0)
    cuts = np.column_stack([distinct[:-1], distinct[1:]])
    malignant, others = np.sort(scores[positive]), np.sort(scores[~positive])
    sensitivity = 1 - np.searchsorted(malignant, cuts[:, 1]) / len(malignant)
    specificity = np.searchsorted(others, cuts[:, 1]) / len(others)
    return cuts, sensitivity, specificity


def _middle(cut: NDArray[np.float64]) -> float:
    return float(cut.sum() / 2)
