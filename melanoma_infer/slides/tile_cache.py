"""A cache of the file's decoded tiles, which neighbouring tiles of the model's grid share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 1 << 26
"""64 MiB: a row of 256 px tiles across a slide of 87,000 px."""

Pixels = NDArray[np.uint8]


class TileCache:
    """The most recently used tiles, shared by threads."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._tiles: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._held_bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """The tile, decoded if it is not cached. An error of `decode` is raised and nothing is cached."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = decode()  # outside the lock, so that others can decode meanwhile; rarely the same tile
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._held_bytes += tile.nbytes
            while self._held_bytes > self._limit_bytes:
                self._held_bytes -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    @property
    def held_bytes(self) -> int:
        """Bytes of the cached tiles."""
        return self._held_bytes
