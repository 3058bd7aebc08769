"""One instruction's access to memory: its elements, its threads, and the fault that it may raise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.ptx import Statement
from mminfer_proofs.sanitizer.warp import WARP

Array = NDArray[Any]


@dataclass(frozen=True)
class Access:
    """A statement with which each thread reads or writes `count` elements of `dtype`."""

    statement: Statement
    dtype: np.dtype[Any]
    count: int = 1

    @property
    def width(self) -> int:
        """Bytes per thread."""
        return self.dtype.itemsize * self.count

    def elements(self, memory: Array) -> Array:
        """Memory as an array (n, count), in which one thread accesses a row."""
        return memory.view(self.dtype).reshape(-1, self.count)

    def aligned(self, addresses: Array, threads: Array) -> None:
        """Raise unless all addresses are multiples of the width.

        Raises:
            KernelFault: memcheck.
        """
        odd = addresses & (self.width - 1) != 0
        if odd.any():
            where = f"address {int(addresses[odd][0]):#x} is no multiple of {self.width} bytes"
            raise self.fault("memcheck", f"the {where}", odd, threads)

    def fault(self, check: str, sentence: str, which: Array, threads: Array) -> KernelFault:
        """The fault that names the first of the threads that the mask `which` marks."""
        first = int(threads[which][0])
        who = f"thread {first} (warp {first // WARP}), one of {int(which.sum())}"
        return KernelFault(f"{check}: {sentence}: {who}, in {self.statement}.")
