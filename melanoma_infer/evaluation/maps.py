"""From which activation a map shows a lesion: the card's `cam_scale` and `region_threshold`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.evaluation.thresholds import youden

FULL_PERCENTILE = 75
"""A quarter of the cells that speak for a lesion count as full evidence: one extreme cell sets no scale."""
REGION_BOUNDS = (0.1, 0.9)
"""Where both kinds of tiles are few, the best threshold may be at an end, and would outline everything or nothing."""

Array = NDArray[np.floating]


def map_scale(lesion_maps: Array, has_lesion: NDArray[np.bool_]) -> float | None:
    """The activation that counts as full evidence, to two digits; None if no map speaks for a lesion.

    The 75th percentile of the lesion map where it is positive, over tiles that have a lesion.

    Args:
        lesion_maps: (N, h, w), the first of the graph's maps.
        has_lesion: (N,).
    """
    positive = lesion_maps[has_lesion]
    positive = positive[positive > 0]
    return float(f"{np.percentile(positive, FULL_PERCENTILE):.1e}") if positive.size else None


def fitted_region_threshold(
    lesion_maps: Array, probabilities: Array, shares: Array, *, card: ModelCard, scale: float
) -> float | None:
    """The evidence from which a cell belongs to a region, to two digits; None if no lesion is outlined.

    That for which cells and outlines agree best: the largest intersection over union of all tiles together, within
    REGION_BOUNDS.

    Args:
        lesion_maps: (N, h, w).
        probabilities: (N, K), for an unknown patient.
        shares: (N, h, w), the share of each cell that is inside the outlines, NaN where that is not known.
        card: the roles of the classes.
        scale: from `map_scale`.
    """
    lesion = probabilities[:, list(card.lesion_columns)].sum(1).astype(np.float64)
    evidence = lesion[:, None, None] * np.clip(lesion_maps.astype(np.float64) / scale, 0, 1)
    known = ~np.isnan(shares)
    evidence, shares = evidence[known], shares[known]
    if not shares.any():
        return None

    def agreement(threshold: float) -> float:
        inside = evidence >= threshold
        both = float(shares[inside].sum())
        return both / (float(inside.sum()) + float(shares.sum()) - both)

    low, high = (round(100 * bound) for bound in REGION_BOUNDS)
    return max((hundredths / 100 for hundredths in range(low, high + 1)), key=agreement)


def region_threshold(
    lesion_maps: Array, probabilities: Array, has_lesion: NDArray[np.bool_], *, card: ModelCard, scale: float
) -> float | None:
    """The evidence from which a cell belongs to a region, to two digits; None if the tiles are all of one kind.

    A tile shows a region if its strongest cell reaches the threshold. It is set by Youden's index on that cell, within
    REGION_BOUNDS: tiles with a lesion should show a region, and the others none.

    Args:
        lesion_maps: (N, h, w).
        probabilities: (N, K), for an unknown patient.
        has_lesion: (N,).
        card: the roles of the classes.
        scale: from `map_scale`.
    """
    lesion = probabilities[:, list(card.lesion_columns)].sum(1).astype(np.float64)
    strongest = lesion * np.clip(lesion_maps.max((1, 2)).astype(np.float64) / scale, 0, 1)
    found = youden(has_lesion, strongest)
    return None if math.isnan(found) else round(float(np.clip(found, *REGION_BOUNDS)), 2)
