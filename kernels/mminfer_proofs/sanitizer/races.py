"""The warps that accessed each byte since the last barrier: two of them, one writing, are a race.

Threads of one warp count as being in step. Instructions of two warps have no order between barriers, whichever of them
is executed first here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[Any]
NOBODY = 0
SEVERAL = 255
MOST_PENDING = 4096


class Races:
    """The warp that wrote, and the warp or warps that read, each byte since the last barrier."""

    def __init__(self, size_bytes: int):
        self._size = size_bytes
        self._writer = np.zeros(size_bytes, np.uint8)
        self._reader = np.zeros(size_bytes, np.uint8)
        self._touched: list[tuple[NDArray[np.uint8], Indices]] = []
        self._pending: list[tuple[Indices, int, Indices]] = []
        self._written = False

    def read(self, places: Indices, width: int, warps: Indices) -> Indices | None:
        """Note reads of elements of `width` bytes; return which of them race with a write, or None if none does.

        Args:
            places: (n,), the elements' indices: byte offsets divided by the width.
            width: a power of two that divides the memory's size.
            warps: (n,), of the threads that read.

        Returns:
            bool, (n,).
        """
        # Most reads meet no write before the next barrier, so they are noted byte by byte only when one comes.
        self._pending.append((places, width, warps))
        if len(self._pending) > MOST_PENDING:
            self._note_reads()
        if not self._written:
            return None
        wrote = self._writer.reshape(-1, width)[places]
        return _racing((wrote != NOBODY) & (wrote != _mark(warps)))

    def write(self, places: Indices, width: int, warps: Indices) -> Indices | None:
        """Note writes; return which of them race with a read or a write, as `read` does.

        Warps that write an element in the same instruction do not race: Triton lets each thread that holds a replicated
        value store it. The caller checks that the values are equal.
        """
        self._note_reads()
        self._written = True
        me = _mark(warps)
        writer, reader = self._writer.reshape(-1, width), self._reader.reshape(-1, width)
        wrote, read = writer[places], reader[places]
        writer[places] = me
        writer[places[(writer[places] != me).any(axis=1)]] = SEVERAL
        self._touched.append((writer, places))
        return _racing(((wrote != NOBODY) & (wrote != me)) | ((read != NOBODY) & (read != me)))

    def forget(self) -> None:
        """Start again after a barrier."""
        for shadow, places in self._touched:
            shadow[places] = NOBODY
        self._touched.clear()
        self._pending.clear()
        self._written = False

    def _note_reads(self) -> None:
        for places, width, warps in self._pending:
            me = _mark(warps)
            reader = self._reader.reshape(-1, width)
            before = reader[places]
            reader[places] = np.where((before == NOBODY) | (before == me), me, SEVERAL)
            # Of several warps that read an element in one instruction, only the last was noted.
            after = reader[places]
            overtaken = ((after != me) & (after != SEVERAL)).any(axis=1)
            reader[places[overtaken]] = SEVERAL
            self._touched.append((reader, places))
        self._pending.clear()


def _mark(warps: Indices) -> Indices:
    return (warps + 1).astype(np.uint8)[:, None]


def _racing(which: Indices) -> Indices | None:
    """The elements of which a byte is marked; None if there is none."""
    elements = np.asarray(which.any(axis=1))
    return elements if elements.any() else None
