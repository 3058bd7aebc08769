"""Golden tiles: does an engine on this machine give the outputs that the bundle was sealed with?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines import MODULES, load_engine
from melanoma_infer.engines.base import Engine, first_non_finite
from melanoma_infer.errors import EngineUnavailableError, GpuLostError, MemoryExhaustedError


@dataclass(frozen=True)
class EngineCheck:
    """One engine and precision against the golden outputs."""

    engine: str
    precision: Precision
    state: Literal["agrees", "differs", "unavailable"]
    max_dp: float | None
    detail: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The cells of a table row."""
        largest = "" if self.max_dp is None else f"{self.max_dp:.1e}"
        return (f"{self.engine} {self.precision}", self.state, largest, self.detail)


def check_engines(bundle: Bundle) -> list[EngineCheck]:
    """Every engine at the bundle's precision, and the openvino engine in bf16 too."""
    wanted: list[tuple[str, Precision]] = [(name, bundle.card.precision) for name in MODULES]
    wanted.insert(1, ("openvino", "bf16"))
    return [check_engine(bundle, name, precision) for name, precision in dict.fromkeys(wanted)]


def check_engine(bundle: Bundle, name: str, precision: Precision) -> EngineCheck:
    """One engine against the golden outputs: probabilities of the graph, and of the host's head for golden patients."""
    try:
        engine = load_engine(bundle, name, precision=precision).engine
    except (EngineUnavailableError, GpuLostError, MemoryExhaustedError) as error:
        return EngineCheck(name, precision, "unavailable", None, str(error))
    tolerance = bundle.card.tolerance_of(precision).dp
    largest = _largest_difference(bundle, engine)
    state: Literal["agrees", "differs"] = "agrees" if largest <= tolerance else "differs"
    return EngineCheck(name, precision, state, largest, f"{engine.numerics.version}, tolerance {tolerance:g}")


def _largest_difference(bundle: Bundle, engine: Engine) -> float:
    golden = bundle.golden
    outputs = engine.infer(golden.tiles)
    if first_non_finite(outputs) is not None:
        return float("inf")
    differences = [np.abs(outputs["probabilities"] - golden.outputs["probabilities"]).max()]
    if bundle.head is not None and golden.host_probabilities is not None:
        for row, patient in enumerate(golden.patients):
            host = bundle.head.probabilities(outputs["features"][row][None], patient)[0]
            differences.append(np.abs(host - golden.host_probabilities[row]).max())
    return float(max(differences))
