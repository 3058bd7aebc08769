"""The subjects of `mminfer bench engines`: engines as `score` runs them, and PyTorch as it is usually run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.openvino_engine import cpu_has_bf16
from melanoma_infer.tolerances import Precision

NCHW, BEST, COMPILED = "torch-eager-nchw", "torch-eager-best", "torch-compile"
KEEPING_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 40)}
"""Makes glibc keep freed memory. Otherwise eager PyTorch spends most of its time on page faults."""
NAMES = (NCHW, BEST, COMPILED, "onnxruntime", "openvino")
"""Of all subjects, on any machine."""
BATCHES = (1, 4, 8)


@dataclass(frozen=True)
class Variant:
    """A batch size and memory layout for plain PyTorch."""

    batch: int
    channels_last: bool


@dataclass(frozen=True)
class Subject:
    """An engine, or a way to run plain PyTorch, that is timed in its own process."""

    name: str
    engine: str
    """One of melanoma_infer.engines.MODULES; "torch" with `variants` is plain PyTorch."""
    precision: Precision
    variants: tuple[Variant, ...] = ()
    """For plain PyTorch: the fastest of these is timed. Empty for an engine, which takes one tile per request."""
    keeps_memory: bool = False
    """Whether it runs with KEEPING_MEMORY."""
    compiled: bool = False
    """Whether torch.compile is used, with frozen weights: takes from a few seconds to a minute, and a C++ compiler."""

    @property
    def key(self) -> tuple[str, str]:
        """Name and precision, which identify it in a run."""
        return (self.name, self.precision)


def subjects(bundle: Bundle, *, compiled: bool = False) -> Iterator[Subject]:
    """Everything that can be timed on this machine's CPU, references first; torch.compile only if `compiled`."""
    every_variant = tuple(Variant(batch, last) for batch in BATCHES for last in (True, False))
    bf16: tuple[Precision, ...] = ("bf16",) if cpu_has_bf16() else ()
    if bundle.weights is not None and bundle.card.network is not None:
        yield Subject(NCHW, "torch", "fp32", (Variant(4, channels_last=False),))
        for precision in ("fp32", *bf16):
            yield Subject(BEST, "torch", precision, every_variant, keeps_memory=True)
            if compiled:
                frozen = (Variant(4, channels_last=True),)
                yield Subject(COMPILED, "torch", precision, frozen, keeps_memory=True, compiled=True)
    for precision in bundle.precisions:
        if precision != "fp16":  # both CPU runtimes would compute it in fp32
            yield Subject("onnxruntime", "onnxruntime", precision)
    for precision in ("fp32", *bf16, *(each for each in bundle.precisions if each == "int8")):
        yield Subject("openvino", "openvino", precision)
