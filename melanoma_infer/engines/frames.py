"""Frames: page-locked memory that readers write tiles into, used again when nothing refers to it any more.

Frames are cut one after the other from large blocks, so that tiles taken in order are uploaded many at a time.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.device import DeviceError

MOST_BYTES = 1 << 30
"""Page-locked memory cannot be swapped: 1 GiB holds 256 tiles of 1,024 px in RGBA."""
BLOCK_BYTES = 1 << 25
"""Size of one block: 42 tiles of 512 px in RGB. At 25 GB/s it is uploaded in 1.3 ms, far longer than a call takes."""


Pinned = Callable[[tuple[int, ...], type[np.generic]], NDArray[Any]]
"""Allocates page-locked memory of a shape and type; may raise a DeviceError."""


class _Block:
    """Memory that frames are cut from. It goes back when this object is gone."""

    __slots__ = ("__weakref__", "memory")

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory


class Frame:
    """Memory for one tile, uint8 (n,). Keep this object as long as its bytes are used."""

    __slots__ = ("block", "memory", "start")

    def __init__(self, block: _Block, start: int, nbytes: int) -> None:
        self.block, self.start = block, start
        self.memory = block.memory[start : start + nbytes]

    def follows(self, other: Frame) -> bool:
        """Whether it begins where the other one ends."""
        return self.block is other.block and self.start == other.start + other.memory.nbytes


class Frames:
    """A ring of frames. Any thread may take one; none waits for one.

    Args:
        pinned: allocates page-locked memory.
        most_bytes: of page-locked memory. Beyond it a frame is ordinary memory, from which an upload is slower.
        block_bytes: of a block; a larger frame has a block of its own.
    """

    def __init__(self, pinned: Pinned, most_bytes: int = MOST_BYTES, block_bytes: int = BLOCK_BYTES) -> None:
        self._pinned, self._most_bytes, self._block_bytes = pinned, most_bytes, block_bytes
        self._free: deque[NDArray[np.uint8]] = deque()
        self._allocated = 0
        self._lock = Lock()
        self._block: _Block | None = None
        """Frames are cut from it, from `_start` on."""
        self._start = 0

    def take(self, nbytes: int) -> Frame:
        """A frame of so many bytes; what it holds is left from earlier."""
        with self._lock:
            if self._block is None or self._start + nbytes > self._block.memory.nbytes:
                self._block = None  # it may be the next one, too
                self._block, self._start = self._next_block(nbytes), 0
            frame = Frame(self._block, self._start, nbytes)
            self._start += nbytes
        return frame

    def _next_block(self, nbytes: int) -> _Block:
        """A block for a frame of so many bytes; of ordinary memory, for that frame alone, if no other can be had."""
        memory = self._reused(nbytes)
        if memory is None:
            return _Block(np.empty(nbytes, np.uint8))
        block = _Block(memory)
        weakref.finalize(block, self._free.append, memory).atexit = False
        return block

    def _reused(self, nbytes: int) -> NDArray[np.uint8] | None:
        """Free page-locked memory, or new; None if there may be no more of it."""
        while self._free:
            memory = self._free.popleft()
            if memory.nbytes >= nbytes:
                return memory
            self._allocated -= memory.nbytes  # of a slide with smaller tiles
        wanted = max(nbytes, self._block_bytes)
        if self._allocated + wanted > self._most_bytes:
            return None
        try:
            memory = self._pinned((wanted,), np.uint8)
        except DeviceError:
            return None
        self._allocated += wanted
        return memory


def runs(frames: Sequence[Frame]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Frames of one size as few arrays: the place of each run's first frame, and the bytes of all its frames."""
    first = 0
    for place in range(1, len(frames) + 1):
        if place == len(frames) or not frames[place].follows(frames[place - 1]):
            start, last = frames[first], frames[place - 1]
            yield first, start.block.memory[start.start : last.start + last.memory.nbytes]
            first = place
