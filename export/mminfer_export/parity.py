"""Parity rows as a bundle is sealed with them: each engine compared with the reference on the same tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle, ParityRow
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.engines.openvino_engine import cpu_has_bf16
from melanoma_infer.runtime.plural import plural
from melanoma_infer.tolerances import Precision
from melanoma_infer.verification.differences import Differences, differences


def parity_row(seen: Differences, numerics: Numerics, *, tiles: int, on: str) -> ParityRow:
    """The row to seal for an engine that `numerics` describes, from its differences on this number of tiles."""
    return ParityRow(
        engine=numerics.engine,
        precision=numerics.precision,
        tiles=tiles,
        max_dp=seen.max_dp,
        p999_dp=seen.p999_dp,
        max_dmm=seen.max_dmm,
        p999_dmm=seen.p999_dmm,
        decision_flips=seen.decision_flips,
        on=on,
    )


def measured_parity(bundle: Bundle, reference: Outputs, tiles: NDArray[np.uint8]) -> list[ParityRow]:
    """One row for each engine and precision that runs our own network's float32 graph on this machine."""
    wanted: list[tuple[str, Precision]] = [("torch", "fp32"), ("openvino", "fp32"), ("onnxruntime", "fp32")]
    if cpu_has_bf16():
        wanted.append(("openvino", "bf16"))
    rows = []
    for name, precision in wanted:
        engine = load_engine(bundle, name, precision=precision).engine
        seen = differences(bundle, reference, engine.infer(tiles), band=bundle.card.tolerance_of(precision).dp)
        rows.append(parity_row(seen, engine.numerics, tiles=len(tiles), on=plural(len(tiles), "drawn tile")))
    return rows
