"""Tile probabilities → slide scores (paper 2.4), with class normalisation for stated priors (paper 2.5)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import AggregatorKind, ClassPriors, ModelCard
from melanoma_infer.records import SCORE_STEPS, ScoreSums, SumScores

Array = NDArray[np.float64]

MALIGNANT_TILE_THRESHOLD = 0.5
"""A tile counts as malignant from this probability on if the card has no threshold."""


def normalise_classes(probabilities: Array, classes: tuple[str, ...], priors: ClassPriors) -> Array:
    """Probabilities (N, K) for the stated class frequencies instead of the trained ones.

    p'(k) = p(k) · stated(k) / trained(k), divided by its sum over k (Bayes; Saerens et al. 2002).
    """
    ratio = np.array([priors.stated[name] / priors.trained[name] for name in classes])
    weighted = probabilities * ratio
    normalised: Array = weighted / weighted.sum(axis=1, keepdims=True)
    return normalised


def malignant_probabilities(probabilities: Array, card: ModelCard) -> Array:
    """The probability (N,) that a tile is malignant: the sum over the malignant classes."""
    result: Array = probabilities[:, list(card.malignant_columns)].sum(axis=1)
    return np.clip(result, 0.0, 1.0)


def exact_sums(steps: NDArray[np.int64], count: int) -> ScoreSums:
    """The sums on the host; as SumScores."""
    rising = np.sort(steps)
    return ScoreSums(int(rising.sum()), int(rising[-1]), int(rising[-count:].sum()), int(rising[-count]))


def aggregate(
    scores: Array,
    kind: AggregatorKind,
    *,
    tile_mm2: float,
    area_mm2: float,
    sum_scores: SumScores = exact_sums,
) -> float | None:
    """The slide's score from its tiles' scores (N,); None if there are none.

    ``mean`` and ``max`` are the paper's. ``top-area-mean``: the mean over the highest-scoring tiles that cover
    `area_mm2`; the last one counts with the part that is still missing. Once the area is covered, adding tissue with
    lower scores changes nothing. `sum_scores` adds up here or on a GPU, with the same bits: its sums are exact.
    """
    if not len(scores):
        return None
    covering = min(area_mm2 / tile_mm2, len(scores))
    count = math.ceil(covering)
    sums = sum_scores(np.rint(scores * SCORE_STEPS).astype(np.int64), count)
    match kind:
        case "mean":
            steps = sums.total / len(scores)
        case "max":
            steps = float(sums.maximum)
        case "top-area-mean":
            part = covering - (count - 1)  # of the last tile
            steps = (sums.highest - sums.last + part * sums.last) / covering
    return steps / SCORE_STEPS


def outcome_score(probabilities: Array, card: ModelCard) -> float | None:
    """Σ p(outcome) / Σ p(malignant) over the malignant tiles; None without an outcome or without malignant tiles."""
    if card.outcome is None:
        return None
    malignant = malignant_probabilities(probabilities, card)
    hot = malignant >= (card.threshold.value if card.threshold else MALIGNANT_TILE_THRESHOLD)
    if not hot.any():
        return None
    outcome = probabilities[:, list(card.outcome_columns)].sum(axis=1)
    # The classes of a float32 softmax may sum to a little more than 1.
    return min(1.0, float(np.sort(outcome[hot]).sum() / np.sort(malignant[hot]).sum()))
