"""The differences of an engine's outputs from the reference's, and which of them exceed their tolerance.

`mminfer verify` and the seal of a bundle both compare with `differences`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import ModelCard, Threshold
from melanoma_infer.engines.base import Outputs
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.scoring.aggregation import aggregate, malignant_probabilities
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.tolerances import Tolerance

Array = NDArray[np.float64]

TAIL_PERCENT = 99.9
P_MIN = 1e-6
"""Smaller probabilities are raised to this before the logarithm: no decision depends on them."""


@dataclass(frozen=True)
class SampleSlide:
    """The tiles of one slide: their rows in the sample, and the area of one tile."""

    rows: tuple[int, ...]
    tile_mm2: float


@dataclass(frozen=True)
class Differences:
    """Differences of one engine from the reference; None where the model does not have the output."""

    max_dp: float
    p999_dp: float
    mean_dp: float
    max_dscore: float
    p999_dlogit: float
    decision_flips: int
    slide_flips: int
    max_dmm: float | None = None
    p999_dmm: float | None = None
    features_rms: float | None = None
    p999_dattention: float | None = None
    cam_correlation: float | None = None


@dataclass(frozen=True)
class Excess:
    """A figure and its tolerance; the figure exceeds the tolerance when `ratio` is above 1."""

    name: str
    value: float
    tolerance: float
    ratio: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2g} (tolerance {self.tolerance:g})"


def differences(
    bundle: Bundle, reference: Outputs, other: Outputs, slides: Sequence[SampleSlide] = (), *, band: float = 0.0
) -> Differences:
    """The differences of `other` from `reference` on the same tiles.

    |Δp| covers the graph's probabilities and those that the head gives for an unknown patient and for the golden
    patients, because slide scores are computed from the head's. A flip is a tile or slide whose raw malignant score,
    for an unknown patient, is on the other side of the card's threshold, while the reference's is farther from it than
    `band`: within an engine's band every verdict is indeterminate. A card without a threshold decides nothing.

    Raises:
        ValueError: the two have different numbers of tiles, or none.
    """
    shapes = [np.shape(outputs["probabilities"]) for outputs in (reference, other)]
    if shapes[0] != shapes[1] or 0 in shapes[0]:
        raise ValueError(f"probabilities {shapes[0]} and {shapes[1]} cannot be compared")
    before, after = (_probabilities(bundle, outputs) for outputs in (reference, other))
    dp = np.abs(after - before)
    scores, others = (np.stack([malignant_probabilities(p, bundle.card) for p in each]) for each in (before, after))
    slide_scores, slide_others = (_slide_scores(bundle.card, each, slides) for each in (scores, others))
    threshold = bundle.card.threshold
    unknown = slice(None, None, len(scores))
    slide_flips = _flips(slide_scores[unknown], slide_others[unknown], threshold, band)
    dscore = np.abs(others - scores)
    dmm, attention, features = (
        np.abs(np.asarray(other[name], np.float64) - reference[name]) if name in reference else None
        for name in ("depth_mm", "attention", "features")
    )
    rms = None if features is None else _rms(features) / max(_rms(reference["features"]), 1e-12)
    return Differences(
        max_dp=float(dp.max()),
        p999_dp=_tail(dp),
        mean_dp=float(dp.mean()),
        max_dscore=float(max(dscore.max(), np.abs(slide_others - slide_scores).max(initial=0.0))),
        p999_dlogit=_tail(np.abs(_centred_logs(other["probabilities"]) - _centred_logs(reference["probabilities"]))),
        decision_flips=_flips(scores[0], others[0], threshold, band) + slide_flips,
        slide_flips=slide_flips,
        max_dmm=None if dmm is None else float(dmm.max()),
        p999_dmm=None if dmm is None else _tail(dmm),
        features_rms=rms,
        p999_dattention=None if attention is None else _tail(attention),
        cam_correlation=_least_correlation(reference, other),
    )


def beyond(seen: Differences, tolerance: Tolerance) -> list[Excess]:
    """Every figure that has a tolerance, sorted so that the one that exceeds it most comes first."""
    flips = seen.decision_flips
    figures = (
        ("p99.9 |Δp|", seen.p999_dp, tolerance.dp),
        ("p99.9 |Δmm|", seen.p999_dmm, tolerance.dmm),
        ("features' relative RMS", seen.features_rms, tolerance.features_rms),
        ("p99.9 |Δlogit|", seen.p999_dlogit, tolerance.dlogit),
        ("p99.9 |Δattention|", seen.p999_dattention, tolerance.attention),
    )
    found = [Excess("decision flips", flips, 0, float(flips and 1 + flips))] + [
        Excess(name, value, limit, value / limit)
        for name, value, limit in figures
        if value is not None and limit is not None
    ]
    if seen.cam_correlation is not None and tolerance.cam_correlation is not None:
        missing, allowed = 1 - seen.cam_correlation, max(1 - tolerance.cam_correlation, 1e-12)
        found.append(Excess("CAM correlation", seen.cam_correlation, tolerance.cam_correlation, missing / allowed))
    return sorted(found, key=lambda each: -each.ratio)


def _probabilities(bundle: Bundle, outputs: Outputs) -> Array:
    """Probabilities (P, N, K): for an unknown patient, then for each golden patient, then the graph's own."""
    graph, features = outputs["probabilities"], outputs.get("features")
    unknown = one_hot(Patient(), bundle.card.patient_fields)
    patients = [unknown, *bundle.golden.patients] if bundle.head is not None else [unknown]
    host = [fused(bundle, graph, features, patient) for patient in patients]
    return np.stack([*host, np.asarray(graph, np.float64)])


def _slide_scores(card: ModelCard, scores: Array, slides: Sequence[SampleSlide]) -> Array:
    """Scores (S · P,) of the slides for each patient, from the tiles' scores (P, N)."""
    kind, area_mm2 = card.aggregator.kind, card.top_area_mm2
    values = [
        aggregate(patient[list(slide.rows)], kind, tile_mm2=slide.tile_mm2, area_mm2=area_mm2)
        for slide in slides
        for patient in scores
    ]
    return np.array([value for value in values if value is not None], np.float64)


def _flips(before: Array, after: Array, threshold: Threshold | None, band: float) -> int:
    if threshold is None:
        return 0
    flipped = (before >= threshold.value) != (after >= threshold.value)
    near = (np.abs(before - threshold.value) <= band) if band else np.zeros(len(before), bool)
    return int((flipped & ~near).sum())


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


def _least_correlation(reference: Outputs, other: Outputs) -> float | None:
    """The lowest correlation of a map with the reference's, over all tiles; constant maps are skipped."""
    if "cam" not in reference:
        return None
    found: list[float] = []
    for i in range(reference["cam"].shape[1]):
        one, two = (outputs["cam"][:, i].ravel().astype(np.float64) for outputs in (reference, other))
        if np.ptp(one) > 0:
            one, two = one - one.mean(), two - two.mean()
            norm = float(np.sqrt((one @ one) * (two @ two)))
            found.append(float(np.clip(one @ two / norm, -1.0, 1.0)) if norm > 0 else 0.0)
    return min(found, default=None)


def _centred_logs(probabilities: NDArray[np.floating]) -> Array:
    logs = np.log(np.clip(np.asarray(probabilities, np.float64), P_MIN, None))
    centred: Array = logs - logs.mean(axis=1, keepdims=True)
    return centred


def _tail(values: Array) -> float:
    return float(np.percentile(values, TAIL_PERCENT))
