"""What a model's answers are worth: AUC, the figures of a confusion matrix, errors of a thickness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Decisions:
    """How decisions agree with the truth; a share is None if nothing is in its denominator."""

    accuracy: float | None
    precision: float | None
    sensitivity: float | None
    """Also called recall."""
    specificity: float | None
    f1: float | None


@dataclass(frozen=True)
class DepthErrors:
    """How far estimated thicknesses are from measured ones, in mm."""

    tiles: int
    mae_mm: float
    sd_mm: float
    """Standard deviation of estimated − measured."""
    pearson_r: float | None
    """None if either does not vary."""


def auc(positive: Bools, scores: Values) -> float | None:
    """The area under the ROC curve; None unless there are both classes."""
    if positive.all() or not positive.any():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def decisions(positive: Bools, suspected: Bools) -> Decisions:
    """Accuracy, precision, sensitivity, specificity and F1 of decisions (N,)."""
    hits, false = int((positive & suspected).sum()), int((~positive & suspected).sum())
    missed, right = int((positive & ~suspected).sum()), int((~positive & ~suspected).sum())
    return Decisions(
        accuracy=_share(hits + right, len(positive)),
        precision=_share(hits, hits + false),
        sensitivity=_share(hits, hits + missed),
        specificity=_share(right, right + false),
        f1=_share(2 * hits, 2 * hits + false + missed),
    )


def depth_errors(measured_mm: Values, estimated_mm: Values) -> DepthErrors | None:
    """The errors of estimated thicknesses (N,); None for N = 0."""
    if not len(measured_mm):
        return None
    error = estimated_mm - measured_mm
    varies = len(error) > 1 and bool(np.ptp(measured_mm) > 0 and np.ptp(estimated_mm) > 0)
    r = float(np.corrcoef(measured_mm, estimated_mm)[0, 1]) if varies else None
    return DepthErrors(len(error), float(np.abs(error).mean()), float(error.std()), r)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
