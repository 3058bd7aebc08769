"""Tiles → pixels: read ahead by several threads, delivered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from melanoma_infer.records import ReadTile, Tile
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides.base import Closing
from melanoma_infer.slides.choice import TileSource
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.native import NativeSize, TakeFrame, native_size, read_native
from melanoma_infer.tiles.pixels import read_tile
from melanoma_infer.tiles.plan import SlidePlan
from melanoma_infer.tiles.read_plan import ReadPlan

AHEAD_BYTES = 1 << 28
"""Native tiles that are prefetched: 61 of 1,024 px in RGBA."""
KEPT_MAX = 10
"""A slide with at most this many tiles keeps all their pixels: the gallery shows as many."""


def read_tiles(
    slide: Slide,
    plan: SlidePlan,
    *,
    tiles: Sequence[Tile] | None = None,
    threads: int,
    ahead: int = 1,
    watch: Stopwatch | None = None,
    take_frame: TakeFrame | None = None,
) -> TileStream:
    """The pixels of a slide's tiles, each once, in order.

    Args:
        slide: the open slide.
        plan: from plan_slide.
        tiles: in any order; None for all of the plan's.
        threads: that read, from `reader_count`; each has a handle of its own, because OpenSlide's errors latch.
        ahead: the number of tiles to prefetch; at least two for each thread.
        watch: gets the time of all threads together when the stream is closed: read, decode, resize.
        take_frame: gives memory for tiles that the engine resizes. They are then native where `native_size` says so;
            None for an engine that does not resize.
    """
    assert plan.source is not None  # a plan of a slide in a file
    wanted = plan.tiles if tiles is None else tiles
    native = None
    if take_frame is not None and (size := native_size(plan.reading, wanted)) is not None:
        native = (size, take_frame)
        ahead = min(ahead, AHEAD_BYTES // size.nbytes)
    return TileStream(
        slide.path,
        plan.source,
        plan.reading,
        wanted,
        threads=threads,
        ahead=max(2 * threads, ahead),
        watch=watch or Stopwatch(),
        native=native,
    )


class TileStream(Closing):
    """Tiles' pixels, read ahead. Nothing is opened and no thread starts before `prefetch` or the first tile.

    See read_tiles for the arguments.
    """

    def __init__(
        self,
        path: Path,
        source: TileSource,
        reading: ReadPlan,
        tiles: Sequence[Tile],
        *,
        threads: int,
        ahead: int,
        watch: Stopwatch,
        native: tuple[NativeSize, TakeFrame] | None = None,
    ) -> None:
        self._native = native
        self._path, self._source, self._reading, self._tiles = path, source, reading, tiles
        self._threads, self._ahead, self._watch = threads, ahead, watch
        self._left = iter(tiles)
        self._waiting: deque[Future[ReadTile]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._idle: list[Slide] = []
        self._opened: list[Slide] = []
        self._lock = Lock()
        self._kept: dict[int, ReadTile] = {}

    def __len__(self) -> int:
        return len(self._tiles)

    def __iter__(self) -> Iterator[ReadTile]:
        """Each tile; pixels are None where they cannot be read."""
        while True:
            self.prefetch()
            if not self._waiting:
                return
            read = self._waiting.popleft().result()
            if len(self._tiles) <= KEPT_MAX and read.native is None:
                self._kept[read.tile.index] = read
            yield read

    def prefetch(self) -> None:
        """Start reading, as far ahead as asked for."""
        while len(self._waiting) < self._ahead and (tile := next(self._left, None)) is not None:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "mminfer-read")
            self._waiting.append(self._pool.submit(self._read, tile))

    def wait(self) -> None:
        """Wait until the next tile is read."""
        self.prefetch()
        if self._waiting:
            self._waiting[0].exception()

    def read(self, tile: Tile) -> ReadTile:
        """One tile again, as when it was scored."""
        with self._watch.timing("gallery"):
            return self._kept.get(tile.index) or self._read(tile, resize=True)

    def close(self) -> None:
        """Stop the threads and release their handles."""
        for future in self._waiting:
            future.cancel()
        if self._pool is not None:
            self._pool.shutdown()
        self._waiting.clear()
        self._left = iter(())
        while self._opened:
            handle = self._opened.pop()
            handle.close()
            self._watch.add(handle.watch)

    def _read(self, tile: Tile, *, resize: bool = False) -> ReadTile:
        """Read a tile with an idle handle of the slide, or a new one; resized here if asked for, or not elsewhere."""
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        if handle is None:
            handle = self._source.open(self._path)
            self._opened.append(handle)
        try:
            if self._native is None or resize:
                return read_tile(handle, tile, self._reading)
            return read_native(handle, tile, self._reading, *self._native)
        finally:
            self._idle.append(handle)
