"""How far one engine's outputs are from the reference's, measured on the same tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle import ParityRow
from melanoma_infer.card import ModelCard
from melanoma_infer.engines.base import Numerics

Outputs = Mapping[str, NDArray[Any]]

TAIL_PERCENT = 99.9


def compare(reference: Outputs, other: Outputs, *, card: ModelCard, numerics: Numerics, on: str) -> ParityRow:
    """Return the differences of `other`, which `numerics` computed, from `reference`.

    max and 99.9th percentile of |Δp| over tiles and classes and of |Δmm| over tiles (None without depth); decision
    flips are tiles whose malignant score stands on the other side of the card's cut, or of the reference's median.

    Raises:
        ValueError: the two hold different numbers of tiles, or none.
    """
    before, after = (np.asarray(outputs["probabilities"], np.float64) for outputs in (reference, other))
    if before.shape != after.shape or not before.size:
        raise ValueError(f"probabilities {before.shape} and {after.shape} cannot be compared")
    dp = np.abs(after - before)
    dmm = np.abs(np.float64(other["depth_mm"]) - reference["depth_mm"]) if "depth_mm" in reference else None
    return ParityRow(
        engine=numerics.engine,
        precision=numerics.precision,
        tiles=len(before),
        max_dp=float(dp.max()),
        p999_dp=float(np.percentile(dp, TAIL_PERCENT)),
        max_dmm=None if dmm is None else float(dmm.max()),
        p999_dmm=None if dmm is None else float(np.percentile(dmm, TAIL_PERCENT)),
        decision_flips=decision_flips(
            before, after, malignant=card.malignant_columns, cut=card.cut.value if card.cut else None
        ),
        on=on,
    )


def decision_flips(
    before: NDArray[np.float64], after: NDArray[np.float64], *, malignant: Sequence[int], cut: float | None
) -> int:
    """Tiles on different sides of the cut, by raw score ≥ cut; without a cut, of the median score of `before`."""
    score, other = before[:, list(malignant)].sum(1), after[:, list(malignant)].sum(1)
    threshold = np.median(score) if cut is None else cut
    return int(((score >= threshold) != (other >= threshold)).sum())
