"""How far a figure would move with other patients: the patient bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles of a 95 % interval."""

Rows = NDArray[np.intp]


def patient_bootstrap(
    figure: Callable[[Rows], float], patients: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """The figure for `draws` samples of patients with replacement; samples for which it is NaN are left out.

    All rows of a patient are drawn together: tiles of one patient resemble each other, and drawn alone they would make
    every interval too narrow.

    Args:
        figure: of these rows; NaN if they do not have it, as an AUC of one class.
        patients: of each row.
        draws: how many samples.
        seed: of the draws.
    """
    by_patient: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        by_patient.setdefault(patient, []).append(row)
    groups = [np.array(rows, np.intp) for rows in by_patient.values()]
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(groups), size=len(groups)) for _ in range(draws))
    values = (figure(np.concatenate([groups[each] for each in sample])) for sample in drawn)
    return np.array([value for value in values if math.isfinite(value)])


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % interval of bootstrapped values; None if there are none."""
    if not len(values):
        return None
    low, high = np.percentile(values, INTERVAL)
    return float(low), float(high)


def auc_interval(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], patients: Sequence[str]
) -> tuple[float, float] | None:
    """The 95 % interval of the AUC; None if no sample has both classes."""
    from melanoma_infer.evaluation.figures import auc

    def figure(rows: Rows) -> float:
        found = auc(positive[rows], scores[rows])
        return math.nan if found is None else found

    return interval(patient_bootstrap(figure, patients))
