"""The golden check: does an engine on this machine give the outputs that the bundle was sealed with?

A seal knows neither this machine's processor, GPU and drivers, nor what a compiler produced in this process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Engine, Outputs, first_non_finite
from melanoma_infer.tolerances import Tolerance

TAIL_PERCENT = 99.9


@dataclass(frozen=True)
class GoldenDifferences:
    """Differences from the golden outputs; infinite where an output is not finite."""

    max_dp: float
    p999_dp: float
    max_dmm: float | None = None
    """None: the model has no depth."""
    non_finite: str | None = None
    """The first output that holds NaN or infinity."""

    def excess(self, tolerance: Tolerance) -> str | None:
        """The first golden output that differs by more than the tolerance, with both numbers; None: all agree."""
        if self.non_finite is not None:
            return f"golden {self.non_finite}: it is not finite here"
        for name, value, limit in (
            ("probabilities", self.max_dp, tolerance.dp),
            ("depth_mm", self.max_dmm, tolerance.dmm),
        ):
            if value is not None and not value <= limit:
                return f"golden {name} by up to {value:.2g}; the card's tolerance is {limit:g}"
        return None


def golden_differences(bundle: Bundle, outputs: Outputs, *, host: bool = False) -> GoldenDifferences:
    """How far outputs for the golden tiles, in their order and repeated any number of times, are from the sealed ones.

    Args:
        bundle: the sealed model.
        outputs: by name, first axis tiles; those without a golden output are only checked for NaN and infinity.
        host: also run the bundle's head on the features, for the golden patients; this counts as |Δp|.
    """
    if (name := first_non_finite(outputs)) is not None:
        return GoldenDifferences(np.inf, np.inf, np.inf, name)
    golden = bundle.golden
    dp = _difference(outputs["probabilities"], golden.outputs["probabilities"])
    dmm = None
    if "depth_mm" in golden.outputs and "depth_mm" in outputs:
        dmm = float(_difference(outputs["depth_mm"], golden.outputs["depth_mm"]).max())
    largest = [float(dp.max())]
    if host and bundle.head is not None and golden.host_probabilities is not None:
        for features, patient, sealed in zip(
            outputs["features"], golden.patients, golden.host_probabilities, strict=False
        ):
            largest.append(float(_difference(bundle.head.probabilities(features[None], patient)[0], sealed).max()))
    return GoldenDifferences(max(largest), float(np.percentile(dp, TAIL_PERCENT)), dmm)


def check_golden(bundle: Bundle, engine: Engine, *, host: bool = False) -> GoldenDifferences:
    """The differences of an engine's outputs, with so many tiles that each of its programs computes some.

    A slide's last tiles make smaller batches, alone or after full ones, and each batch size has a program of its own in
    each slot: so many tiles as a small batch go alone, after one full batch, and so on.
    """
    tiles = bundle.golden.tiles
    count = max(len(tiles), engine.tiles_at_once)
    outputs = list(engine.infer_each(tiles[np.arange(count) % len(tiles)]))
    *smaller, largest = engine.buckets
    for size in (size for bucket in smaller for size in range(bucket, engine.tiles_at_once, largest)):
        outputs += engine.infer_each(tiles[np.arange(count, count + size) % len(tiles)])
        count += size
    whole = {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}
    return golden_differences(bundle, whole, host=host)


def golden_failure(bundle: Bundle, engine: Engine) -> str | None:
    """Why an engine must not be used on this machine; None when its golden outputs are within the card's tolerance."""
    precision = engine.numerics.precision
    excess = check_golden(bundle, engine).excess(bundle.card.tolerance_of(precision))
    return None if excess is None else f"{precision} differs from the {excess}"


def _difference(values: NDArray[np.floating], sealed: NDArray[np.floating]) -> NDArray[np.floating]:
    difference: NDArray[np.floating] = np.abs(values - np.resize(sealed, (len(values), *sealed.shape[1:])))
    return difference
