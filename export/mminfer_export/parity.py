"""How far one engine's outputs are from the reference's, measured on the same tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle, ParityRow
from melanoma_infer.card import DEFAULT_TOLERANCES, ModelCard, Precision
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.base import Numerics
from melanoma_infer.engines.openvino_engine import cpu_has_bf16

Outputs = Mapping[str, NDArray[Any]]

TAIL_PERCENT = 99.9


def compare(reference: Outputs, other: Outputs, *, card: ModelCard, numerics: Numerics, on: str) -> ParityRow:
    """Return the differences of `other`, which `numerics` computed, from `reference`.

    max and 99.9th percentile of |Δp| over tiles and classes and of |Δmm| over tiles (None without depth);
    decision flips are tiles whose malignant score is on the other side of the card's threshold, or of the reference's
    median.

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
            before, after, malignant=card.malignant_columns, threshold=card.threshold.value if card.threshold else None
        ),
        on=on,
    )


def measured_parity(bundle: Bundle, reference: Outputs, tiles: NDArray[np.uint8]) -> list[ParityRow]:
    """One row for each engine and precision that runs our own network's float32 graph on this machine."""
    wanted: list[tuple[str, Precision]] = [("torch", "fp32"), ("openvino", "fp32"), ("onnxruntime", "fp32")]
    if cpu_has_bf16():
        wanted.append(("openvino", "bf16"))
    engines = (load_engine(bundle, name, precision=precision).engine for name, precision in wanted)
    on = f"{len(tiles)} drawn tiles"
    return [
        compare(reference, engine.infer(tiles), card=bundle.card, numerics=engine.numerics, on=on) for engine in engines
    ]


def decision_flips(
    before: NDArray[np.float64], after: NDArray[np.float64], *, malignant: Sequence[int], threshold: float | None
) -> int:
    """Tiles on different sides of the threshold, by raw score ≥ threshold; without one, the median of `before`.

    Of an odd number of tiles one stands at the median itself, so that is lowered by what rounding in fp32 may do.
    """
    score, other = before[:, list(malignant)].sum(1), after[:, list(malignant)].sum(1)
    threshold = np.median(score) - DEFAULT_TOLERANCES["fp32"].dp if threshold is None else threshold
    return int(((score >= threshold) != (other >= threshold)).sum())
