"""The engines of this machine checked against a bundle's golden outputs, for `mminfer doctor` and `bundle verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import MODULES, load_engine
from melanoma_infer.engines.golden import check_golden
from melanoma_infer.errors import EngineUnavailableError, GpuLostError, MemoryExhaustedError
from melanoma_infer.tolerances import Precision


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
    """Check every engine at the bundle's precision, and OpenVINO in bf16 too."""
    wanted: list[tuple[str, Precision]] = [(name, bundle.card.precision) for name in MODULES]
    wanted.insert(1, ("openvino", "bf16"))
    return [check_engine(bundle, name, precision) for name, precision in dict.fromkeys(wanted)]


def check_engine(bundle: Bundle, name: str, precision: Precision) -> EngineCheck:
    """Check one engine: its own outputs, and what the head on the host makes of its features for golden patients."""
    try:
        engine = load_engine(bundle, name, precision=precision).engine
    except (EngineUnavailableError, GpuLostError, MemoryExhaustedError) as error:
        return EngineCheck(name, precision, "unavailable", None, str(error))
    tolerance = bundle.card.tolerance_of(precision)
    found = check_golden(bundle, engine, host=True)
    state: Literal["agrees", "differs"] = "agrees" if found.excess(tolerance) is None else "differs"
    detail = ", ".join([engine.numerics.version, f"tolerance {tolerance.dp:g}", *engine.remarks])
    return EngineCheck(name, precision, state, found.max_dp, detail)
