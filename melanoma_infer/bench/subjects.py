"""What is timed: engines as `score` runs them, and PyTorch as others run it, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines.openvino_engine import cpu_has_bf16

NCHW, BEST, COMPILED = "torch-eager-nchw", "torch-eager-best", "torch-compile"
KEEPING_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 40)}
"""For glibc: freed memory is kept. Otherwise eager PyTorch spends most of its time on page faults."""
BATCHES = (1, 4, 8)


@dataclass(frozen=True)
class Way:
    """One way to run plain PyTorch."""

    batch: int
    channels_last: bool


@dataclass(frozen=True)
class Subject:
    """One thing to be timed."""

    name: str
    engine: str
    """One of melanoma_infer.engines.MODULES; "torch" with `ways` is plain PyTorch."""
    precision: Precision
    ways: tuple[Way, ...] = ()
    """Of plain PyTorch: the fastest of these is timed. An engine has none: it takes one tile a request."""
    keeps_memory: bool = False
    compiled: bool = False
    """By torch.compile, its weights frozen: it takes from some seconds to a minute, and a C++ compiler."""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same in two runs."""
        return (self.name, self.precision)


def subjects(bundle: Bundle, *, compiled: bool = False) -> Iterator[Subject]:
    """Everything that can be timed on this machine's CPU, references first; torch.compile only where asked for."""
    every_way = tuple(Way(batch, last) for batch in BATCHES for last in (True, False))
    bf16: tuple[Precision, ...] = ("bf16",) if cpu_has_bf16() else ()
    if bundle.weights is not None and bundle.card.network is not None:
        yield Subject(NCHW, "torch", "fp32", (Way(4, channels_last=False),))
        for precision in ("fp32", *bf16):
            yield Subject(BEST, "torch", precision, every_way, keeps_memory=True)
            if compiled:
                frozen = (Way(4, channels_last=True),)
                yield Subject(COMPILED, "torch", precision, frozen, keeps_memory=True, compiled=True)
    for precision in bundle.precisions:
        if precision != "fp16":  # both would compute it in fp32 on a CPU
            yield Subject("onnxruntime", "onnxruntime", precision)
    for precision in ("fp32", *bf16, *(each for each in bundle.precisions if each == "int8")):
        yield Subject("openvino", "openvino", precision)
