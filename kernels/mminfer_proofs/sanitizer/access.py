"""One instruction's access to memory: what is read or written, by which threads, and the fault that it may be."""

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
    """A statement that reads or writes `count` elements of `dtype` a thread."""

    statement: Statement
    dtype: np.dtype[Any]
    count: int = 1

    @property
    def width(self) -> int:
        """Bytes a thread."""
        return self.dtype.itemsize * self.count

    def elements(self, memory: Array) -> Array:
        """Bytes of memory as (n, count): a row is what one thread reads or writes."""
        return memory.view(self.dtype).reshape(-1, self.count)

    def aligned(self, addresses: Array, threads: Array) -> None:
        """Refuse addresses that are no multiples of the width.

        Raises:
            KernelFault: memcheck.
        """
        odd = addresses & (self.width - 1) != 0
        if odd.any():
            where = f"address {int(addresses[odd][0]):#x} is no multiple of {self.width} bytes"
            raise self.fault("memcheck", f"the {where}", odd, threads)

    def fault(self, check: str, sentence: str, which: Array, threads: Array) -> KernelFault:
        """The fault of those threads among the access's; `which` is a mask over `threads`."""
        first = int(threads[which][0])
        who = f"thread {first} (warp {first // WARP}), one of {int(which.sum())}"
        return KernelFault(f"{check}: {sentence}: {who}, in {self.statement}.")
