"""Tiles → pixels: read ahead by several threads, delivered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock

from melanoma_infer.records import ReadTile, Tile
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides.base import Closing
from melanoma_infer.slides.choice import TileSource
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.native import Frame, NativeSize, framed, native_size, read_native
from melanoma_infer.tiles.pixels import read_tile
from melanoma_infer.tiles.plan import SlidePlan
from melanoma_infer.tiles.read_plan import ReadPlan

AHEAD_BYTES = 1 << 28
"""Tiles in frames that are prefetched: 341 of 512 px in RGB, or 64 native ones of 1,024 px in RGBA."""
TOGETHER_MAX = 8
"""Tiles that a thread reads in one go for an engine that needs many at once: the host needed 28 µs a tile with 8, and
39 µs with 1, most of the difference for handing them over (benchmarks/fed_pipeline.py)."""
KEPT_MAX = 10
"""A slide with at most this many tiles keeps all their pixels: the gallery shows as many."""


def read_tiles(
    slide: Slide,
    plan: SlidePlan,
    feed: Feed,
    *,
    tiles: Sequence[Tile] | None = None,
    watch: Stopwatch | None = None,
) -> TileStream:
    """The pixels of a slide's tiles, each once, in order.

    Args:
        slide: the open slide.
        plan: from plan_slide.
        feed: what the tiles are read for.
        tiles: in any order; None for all of the plan's.
        watch: gets the time of all threads together when the stream is closed: read, decode, resize.
    """
    assert plan.source is not None  # a plan of a slide in a file
    wanted = plan.tiles if tiles is None else tiles
    native = native_size(plan.reading, wanted) if feed.resizes else None
    return TileStream(slide.path, plan.source, plan.reading, wanted, feed, watch=watch or Stopwatch(), native=native)


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
        feed: Feed,
        *,
        watch: Stopwatch,
        native: NativeSize | None = None,
    ) -> None:
        self._path, self._source, self._reading, self._tiles = path, source, reading, tiles
        self._readers, self._take_frame, self._watch, self._native = feed.readers, feed.take_frame, watch, native
        self._frame_nbytes = native.nbytes if native is not None else 3 * reading.tile_px**2
        in_frames = feed.ahead if feed.take_frame is None else min(feed.ahead, AHEAD_BYTES // self._frame_nbytes)
        self._ahead = max(2 * feed.readers, in_frames)
        self._together = max(1, min(TOGETHER_MAX, min(self._ahead, len(tiles)) // (4 * feed.readers)))
        self._left = iter(tiles)
        self._waiting: deque[Future[list[ReadTile]]] = deque()
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
            for read in self._waiting.popleft().result():
                if len(self._tiles) <= KEPT_MAX and read.native is None:
                    self._kept[read.tile.index] = read
                yield read

    def prefetch(self) -> None:
        """Start reading, as far ahead as asked for."""
        together = self._together
        while len(self._waiting) * together < self._ahead and (tiles := list(islice(self._left, together))):
            # Here, not in the reading thread: frames of neighbouring tiles follow each other, and are uploaded at once.
            frames = [self._take_frame(self._frame_nbytes) if self._take_frame else None for _ in tiles]
            self._waiting.append(self._threads.submit(self._read_together, tiles, frames))

    def wait(self) -> None:
        """Wait until the next tile is read."""
        self.prefetch()
        if self._waiting:
            self._waiting[0].exception()

    def read(self, tiles: Sequence[Tile]) -> list[ReadTile]:
        """Some tiles again, as when they were scored."""
        with self._watch.timing("gallery"):
            return list(self._threads.map(lambda tile: self._kept.get(tile.index) or self._read(tile), tiles))

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

    @property
    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._readers, "mminfer-read")
        return self._pool

    def _read_together(self, tiles: list[Tile], frames: list[Frame | None]) -> list[ReadTile]:
        return [self._read(tile, frame) for tile, frame in zip(tiles, frames, strict=True)]

    def _read(self, tile: Tile, frame: Frame | None = None) -> ReadTile:
        """Read a tile with an idle handle of the slide, or a new one; in a frame it is native where tiles are."""
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        if handle is None:
            handle = self._source.open(self._path)
            self._opened.append(handle)
        try:
            if frame is None:
                return read_tile(handle, tile, self._reading)
            if self._native is None:
                return framed(read_tile(handle, tile, self._reading), frame)
            return read_native(handle, tile, self._reading, self._native, frame)
        finally:
            self._idle.append(handle)
