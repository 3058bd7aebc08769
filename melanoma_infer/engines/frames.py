"""Frames: page-locked memory that readers write tiles into, used again when nothing refers to a frame any more."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.device import DeviceError

MOST_BYTES = 1 << 30
"""Page-locked memory cannot be swapped: 1 GiB holds 256 tiles of 1,024 px in RGBA."""


Pinned = Callable[[tuple[int, ...], type[np.generic]], NDArray[Any]]
"""Allocates page-locked memory of a shape and type; may raise a DeviceError."""


class Frame:
    """Memory for one tile. It goes back when this object is gone, so keep it as long as its bytes are used."""

    __slots__ = ("__weakref__", "memory")

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory


class Frames:
    """A ring of frames. Any thread may take one; none waits for one.

    Args:
        pinned: allocates page-locked memory.
        most_bytes: of page-locked memory. Beyond it a frame is ordinary memory, from which an upload is slower.
    """

    def __init__(self, pinned: Pinned, most_bytes: int = MOST_BYTES) -> None:
        self._pinned, self._most_bytes = pinned, most_bytes
        self._free: deque[NDArray[np.uint8]] = deque()
        self._allocated = 0
        self._lock = Lock()

    def take(self, nbytes: int) -> Frame:
        """A frame of at least so many bytes; what it holds is left from earlier."""
        with self._lock:
            memory = self._reused(nbytes)
            if memory is None:
                return Frame(np.empty(nbytes, np.uint8))
        frame = Frame(memory)
        weakref.finalize(frame, self._free.append, memory).atexit = False
        return frame

    def _reused(self, nbytes: int) -> NDArray[np.uint8] | None:
        """Free page-locked memory, or new; None if there may be no more of it."""
        while self._free:
            memory = self._free.popleft()
            if memory.nbytes >= nbytes:
                return memory
            self._allocated -= memory.nbytes  # of a slide with smaller tiles
        if self._allocated + nbytes > self._most_bytes:
            return None
        try:
            memory = self._pinned((nbytes,), np.uint8)
        except DeviceError:
            return None
        self._allocated += nbytes
        return memory
