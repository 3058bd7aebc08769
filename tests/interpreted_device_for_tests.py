"""The CPU in a GPU's place, in Triton's interpreter (TRITON_INTERPRET=1): the triton engine's device and operators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.engines.device import Stream
from melanoma_infer.engines.torch_device import DTYPES, TORCH_DTYPES, KernelNetwork, Pass, score_sums, translated
from melanoma_infer.engines.torch_engine import network_of
from melanoma_infer.engines.torch_resize import TorchResize
from melanoma_infer.engines.triton_engine import TritonEngine
from melanoma_infer.records import NativeTile, ScoreSums
from mminfer_kernels import torch_ops
from mminfer_kernels.catalogue import KERNELS
from mminfer_kernels.launch import TARGETS

CPU = torch.device("cpu")


class InterpretedDevice:
    """An `engines.device.Device` whose calls are done when they return."""

    def __init__(self, network: KernelNetwork) -> None:
        self._network = network
        self._resize = TorchResize(CPU, TARGETS[80], pin=lambda tensor: tensor)

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Host memory."""
        return np.zeros(shape, dtype)

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """A tensor."""
        return torch.zeros(shape, dtype=TORCH_DTYPES[dtype])

    def program(self, tiles: Tensor, outputs: Mapping[str, Tensor], rows: int) -> Pass:
        """The forward pass, not run yet."""
        return Pass(self._network, tiles, outputs, rows)

    def upload(self, source: NDArray[Any] | Tensor, target: Tensor, first: int = 0) -> None:
        """Copy."""
        target[first : first + len(source)].copy_(torch.as_tensor(source))

    def resize(self, tiles: Sequence[NativeTile], target: Tensor, first: int) -> None:
        """Copy and resize."""
        self._resize(tiles, target[first : first + len(tiles)])

    def score_sums(self, steps: NDArray[np.int64], count: int) -> ScoreSums:
        """By the interpreted kernel."""
        return score_sums(torch.from_numpy(steps), count)

    def launch(self, program: Pass) -> None:
        """Run."""
        with translated(CPU):
            program.run()

    def download(self, source: Tensor, target: NDArray[Any]) -> None:
        """Copy."""
        target[:] = source[: len(target)].numpy()

    def record(self, stream: Stream) -> None:
        """Return None: the work is done."""

    def wait(self, stream: Stream, event: None) -> None:
        """Return at once."""

    def synchronize(self, event: None) -> None:
        """Return at once."""

    def release(self) -> None:
        """Return at once."""


def interpreted_engine(bundle: Bundle, precision: str, buckets: tuple[int, ...]) -> TritonEngine:
    """The triton engine on the CPU; its operators run kernels within `interpreted_operators` only."""
    network = KernelNetwork(network_of(bundle), DTYPES[precision], CPU)
    numerics = Numerics("triton", triton.__version__, precision, "cpu, interpreted")
    return TritonEngine(bundle, InterpretedDevice(network), numerics, buckets)


@contextmanager
def interpreted_operators() -> Iterator[None]:
    """Within it, the operators run kernels in the interpreter for CPU tensors, with exact products."""
    from mminfer_proofs.interpreted import mended  # no wheel holds it

    library = torch.library.Library("mminfer", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of the override
        for name in KERNELS:
            library.impl(name, partial(torch_ops.compute, name, target=TARGETS[80]), "CPU", allow_override=True)
    try:
        with mended():
            yield
    finally:
        library._destroy()
