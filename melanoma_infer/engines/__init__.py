"""Engines: what runs a bundle's graph. A runtime is imported only when its engine is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from melanoma_infer.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines.base import Engine
from melanoma_infer.errors import EngineUnavailableError

MODULES = {
    "openvino": "melanoma_infer.engines.openvino_engine",
    "onnxruntime": "melanoma_infer.engines.onnx_engine",
    "torch": "melanoma_infer.engines.torch_engine",
}
"""By name, in the order in which `auto` tries them: fastest on a CPU first."""

Load = Callable[[Bundle, Precision, int | None, str | None], Engine]


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and why the ones before it were not taken."""

    engine: Engine
    passed_over: tuple[str, ...]


def load_engine(
    bundle: Bundle,
    name: str = "auto",
    *,
    precision: str | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> EngineChoice:
    """The engine of that name, or for "auto" the first that loads and passed the parity gate.

    Args:
        bundle: the verified model.
        name: "auto" or one of MODULES.
        precision: None for the card's, or fp32, bf16, fp16, int8, or "fastest".
        threads: None for the cores there are.
        device: None for "cpu", or a device that the engine knows.

    Raises:
        EngineUnavailableError: the engine, the precision or the device does not exist here.
    """
    if name != "auto":
        return EngineChoice(_load(bundle, name, _precision(bundle, name, precision), threads, device), ())
    passed_over: list[str] = []
    for candidate in MODULES:
        wanted = _precision(bundle, candidate, precision)
        if why := _failed_gate(bundle, candidate, wanted):
            passed_over.append(f"{candidate}: {why}")
            continue
        try:
            return EngineChoice(_load(bundle, candidate, wanted, threads, device), tuple(passed_over))
        except EngineUnavailableError as error:
            passed_over.append(f"{candidate}: {error}")
    raise EngineUnavailableError("No engine can run this bundle here. " + " ".join(passed_over))


def _load(bundle: Bundle, name: str, precision: Precision, threads: int | None, device: str | None) -> Engine:
    if name not in MODULES:
        raise EngineUnavailableError(f"There is no engine {name!r}. Choose auto, {', '.join(MODULES)}.")
    load: Load = import_module(MODULES[name]).load
    return load(bundle, precision, threads, device)


def _precision(bundle: Bundle, engine: str, asked: str | None) -> Precision:
    match asked:
        case None:
            return bundle.card.precision
        case "fp32" | "bf16" | "fp16" | "int8":
            return asked
        case "fastest":
            return _fastest(bundle, engine)
    raise EngineUnavailableError(f"There is no precision {asked!r}. Choose fp32, bf16, fp16, int8 or fastest.")


def _fastest(bundle: Bundle, engine: str) -> Precision:
    """The fastest precision whose sealed parity is within its gate and that this processor has."""
    from melanoma_infer.engines.openvino_engine import cpu_has_bf16

    order: tuple[Precision, ...] = ("int8", "bf16") if engine == "openvino" and cpu_has_bf16() else ("int8",)
    sealed = (precision for precision in order if bundle.parity_of(engine, precision) is not None)
    return next((precision for precision in sealed if not _failed_gate(bundle, engine, precision)), "fp32")


def _failed_gate(bundle: Bundle, engine: str, precision: Precision) -> str | None:
    """Why the sealed parity of this engine is outside the card's gate; None where it is within, or not measured."""
    row = bundle.parity_of(engine, precision)
    gate = bundle.card.parity_gates.get(precision)
    if row is None or gate is None:
        return None
    if row.decision_flips or row.p999_dp > gate.dp or (row.p999_dmm or 0.0) > gate.dmm:
        return f"{precision} differs from the reference by more than the card's gate"
    return None
