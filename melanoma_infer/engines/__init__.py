"""Engines run a bundle's graph. A runtime is imported only when its engine is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Engine, Tell
from melanoma_infer.engines.device import nvidia_driver_is_loaded
from melanoma_infer.engines.fastest import fastest
from melanoma_infer.engines.golden import golden_failure
from melanoma_infer.engines.parity_table import measured
from melanoma_infer.errors import (
    BundleError,
    EngineUnavailableError,
    GpuLostError,
    MemoryExhaustedError,
    ParityError,
    UsageError,
)
from melanoma_infer.tolerances import PRECISIONS, Precision

MODULES = {
    "openvino": "melanoma_infer.engines.openvino_engine",
    "triton": "melanoma_infer.engines.triton_engine",
    "onnxruntime": "melanoma_infer.engines.onnx_engine",
    "torch": "melanoma_infer.engines.torch_engine",
    "tensorrt": "melanoma_infer.engines.tensorrt_engine",
    "tensorrt-rtx": "melanoma_infer.engines.tensorrt_rtx_engine",
}
"""Modules by engine name, in the order in which `auto` tries them without a GPU: fastest on a CPU first."""
ON_GPU = ("tensorrt", "tensorrt-rtx", "triton")
"""`auto` tries these first when an NVIDIA driver is loaded, in this order: TensorRT chooses and fuses the convolutions'
kernels for the GPU, while `triton` leaves them to PyTorch, one by one."""
OF_ENGINE_FILES = ("tensorrt", "tensorrt-rtx")
"""These run an engine built ahead of time: one from the cache, or a file that the user names."""
CHOICES = (*PRECISIONS, "fastest")
"""What may be asked for as a precision."""

Load = Callable[..., Engine]
"""A module's `load`: bundle, precision, threads, device; those of OF_ENGINE_FILES also take engine_file and tell."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and why the ones before it were skipped."""

    engine: Engine
    skipped: tuple[str, ...]


def load_engine(
    bundle: Bundle,
    name: str = "auto",
    *,
    precision: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    engine_file: Path | None = None,
    tell: Tell = lambda _text: None,
) -> EngineChoice:
    """The engine of that name, or for "auto" the first that loads and is within the card's tolerance.

    Args:
        bundle: the verified model.
        name: "auto" or one of MODULES.
        precision: None for the card's, or fp32, bf16, fp16, int8, or "fastest".
        threads: None for all available cores.
        device: None for the engine's default, the CPU or the first GPU; or for example "cpu" or "cuda:1".
        engine_file: for OF_ENGINE_FILES, an engine with its manifest in the same folder; None for one from the cache.
        tell: called before an engine is built, which takes minutes, and before precisions are timed.

    Raises:
        UsageError: there is no such engine or precision, or an engine file was given without the name of an engine that
            reads such files.
        BundleError: the engine file is damaged, or was built from another model.
        EngineUnavailableError: this machine or bundle does not have the engine, the precision or the device.
        MemoryExhaustedError, GpuLostError: the GPU of the named engine failed; "auto" skips such an engine, and one
            whose library does not take the bundle's graph as it is.
    """
    if name not in ("auto", *MODULES):
        raise UsageError(f"--engine {name}: no such engine. Choose from auto, {', '.join(MODULES)}.")
    if precision not in (None, *CHOICES):
        raise UsageError(f"--precision {precision}: no such precision. Choose from {', '.join(CHOICES)}.")
    if engine_file is not None and name not in OF_ENGINE_FILES:
        names = " or ".join(OF_ENGINE_FILES)
        raise UsageError(f"An engine file needs --engine {names}: name the engine that it was built for.")

    def load(candidate: str, taken: Precision) -> Engine:
        module: Load = import_module(MODULES[candidate]).load
        of_file: dict[str, Any] = {"engine_file": engine_file, "tell": tell} if candidate in OF_ENGINE_FILES else {}
        return module(bundle, taken, threads, device, **of_file)

    def precision_of(candidate: str) -> Precision:
        if precision != "fastest":
            return next((each for each in PRECISIONS if each == precision), bundle.card.precision)
        proven = [each for each in PRECISIONS if each != "fp32" and _is_proven(bundle, candidate, each, device)]
        return fastest(bundle, candidate, (*proven, "fp32"), device, lambda taken: load(candidate, taken), tell)

    if name != "auto":
        return EngineChoice(load(name, precision_of(name)), ())
    skipped: list[str] = []
    for candidate in candidates():
        try:
            taken = precision_of(candidate)
            if why := _failed_here(bundle, candidate, taken, device):
                raise ParityError(why)
            engine = load(candidate, taken)
            if why := golden_failure(bundle, engine):
                raise ParityError(why)
            return EngineChoice(engine, tuple(skipped))
        except (EngineUnavailableError, BundleError, ParityError, MemoryExhaustedError, GpuLostError) as error:
            skipped.append(f"{candidate}: {error}")
    raise EngineUnavailableError("No engine can run this bundle here. " + " ".join(skipped))


def candidates() -> list[str]:
    """Names of MODULES in the order in which `auto` tries them on this machine."""
    first = [name for name in ON_GPU if name in MODULES] if nvidia_driver_is_loaded() else []
    return [*first, *(name for name in MODULES if name not in first)]


def _is_proven(bundle: Bundle, engine: str, precision: Precision, device: str | None) -> bool:
    """Whether the parity of an engine was measured, here or when the bundle was sealed, and is within its tolerance."""
    if bundle.parity_of(engine, precision) is None and measured(bundle, engine, precision, device) is None:
        return False
    return _failed_here(bundle, engine, precision, device) is None


def _failed_here(bundle: Bundle, engine: str, precision: Precision, device: str | None) -> str | None:
    """Why this engine must not be used: from `mminfer verify` on this machine, else from the sealed parity."""
    if (here := measured(bundle, engine, precision, device)) is not None:
        return None if here.passed else f"{precision} failed `mminfer verify` on this machine ({here.why})"
    if (sealed := bundle.parity_of(engine, precision)) is None:
        return None
    tolerance = bundle.card.tolerance_of(precision)
    if sealed.decision_flips or sealed.p999_dp > tolerance.dp or (sealed.p999_dmm or 0.0) > tolerance.dmm:
        return f"{precision} differs from the reference by more than the card's tolerance"
    return None
