"""Tiles → pixels, read ahead by several threads, delivered in the order asked for.

The read plan (level, block means, resize, padding) is part of what a model was trained on, so it follows from the card.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx, Scale
from melanoma_infer.records import ReadTile, SlideFacts, Tile
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides.base import Opener
from melanoma_infer.slides.retrying import RetryingReader
from melanoma_infer.tiles.block_means import BLOCK_PX_MAX, block_means
from melanoma_infer.tiles.grid import Geometry

BAND_BYTES = 1 << 25
"""A tile that is reduced in blocks is read in bands of about this many bytes: 32 MiB, whatever the slide's scale."""
READERS_MAX = 4
"""More handles cost memory (each has OpenSlide's 32 MiB cache) and no CPU engine needs more."""


@dataclass(frozen=True)
class ReadPlan:
    """How the pixels of every tile are made."""

    level: int
    downsample: float
    """Level-0 pixels in one level pixel."""
    block_px: int
    """Side k of the blocks that are averaged before the bilinear resize; 1 means none."""
    tile_px: int
    equalised: bool


def read_plan(facts: SlideFacts, scale: Scale, geometry: Geometry, card: ModelCard) -> ReadPlan:
    """The lowest pyramid level that is not coarser than needed (or level 0), and the card's resize from there.

    Raises:
        UsageError: the tiles are so coarse for that level that no block mean can be exact.
    """
    level = 0
    if card.read_from == "pyramid":
        fine_enough = [
            i for i, downsample in enumerate(facts.level_downsamples)
            if downsample * scale.mean_um <= geometry.um_per_px * (1 + 1e-9)
        ]  # fmt: skip
        level = max(fine_enough, default=0)
    downsample = facts.level_downsamples[level]
    shrink = geometry.um_per_px / (scale.mean_um * downsample)
    block_px = max(1, math.floor(shrink / 2)) if card.resize == "reduce-bilinear" else 1
    if block_px > BLOCK_PX_MAX:
        raise UsageError(
            f"The tiles are too coarse for this slide: {shrink:.0f} of its pixels make one of the model's, at most "
            f"{2 * BLOCK_PX_MAX + 1} can. Choose a smaller --tile-um, or a slide with more pyramid levels."
        )
    return ReadPlan(level, downsample, block_px, geometry.tile_px, card.histogram_equalisation)


def read_tiles(
    path: Path,
    tiles: Iterable[Tile],
    plan: ReadPlan,
    *,
    threads: int,
    ahead: int = 1,
    opener: Opener | None = None,
    watch: Stopwatch | None = None,
) -> Generator[ReadTile, None, None]:
    """The pixels of every tile, in order. At most two tiles a thread are held, or as many as are asked ahead.

    Args:
        path: the slide.
        tiles: any order.
        plan: from read_plan.
        threads: reading threads; each has a handle of its own, because OpenSlide's errors latch.
        ahead: how many tiles should lie ready.
        opener: how each handle is opened; None for open_slide.
        watch: gets the time of all threads together, when the last tile is there: read, decode, resize.
    """
    count = max(1, min(threads, READERS_MAX))
    readers: SimpleQueue[RetryingReader] = SimpleQueue()
    opened: list[RetryingReader] = []

    def read(tile: Tile) -> ReadTile:
        reader = readers.get()
        try:
            return read_tile(reader, tile, plan)
        finally:
            readers.put(reader)

    try:
        for _ in range(count):
            opened.append(RetryingReader(path, opener))
            readers.put(opened[-1])
        with ThreadPoolExecutor(count, "mminfer-read") as pool:
            waiting: deque[Future[ReadTile]] = deque()
            try:
                for tile in tiles:
                    waiting.append(pool.submit(read, tile))
                    if len(waiting) >= max(2 * count, ahead):
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
    finally:
        for reader in opened:
            reader.close()
            if watch is not None:
                watch.add(reader.watch)


def read_tile(reader: RetryingReader, tile: Tile, plan: ReadPlan) -> ReadTile:
    """One tile's pixels, resized to the model's input; None in their place where the slide cannot be read."""
    region = _level_region(tile.rect_l0, plan)
    reduced = _reduced(reader, region, plan)
    if reduced is None:
        return ReadTile(tile, None)
    with reader.watch.timing("resize"):
        image = Image.fromarray(reduced.pixels).resize(
            (plan.tile_px, plan.tile_px), Image.Resampling.BILINEAR, box=region.rect_in_reduced
        )
        if plan.equalised:
            image = ImageOps.equalize(image)
        pixels = np.array(image)
    # The transparent share is that of whole blocks around the tile: it can be more than the tile has inside the slide.
    blank = min(1.0, tile.padded_fraction + reduced.transparent_px / region.rect.area)
    return ReadTile(tile, pixels, blank)


@dataclass(frozen=True)
class _LevelRegion:
    """Whole blocks of level pixels around a tile, and where the tile lies among the blocks' means."""

    rect: RectPx
    rect_in_reduced: tuple[float, float, float, float]


def _level_region(rect_l0: RectPx, plan: ReadPlan) -> _LevelRegion:
    k = plan.block_px
    left, top, right, bottom = (
        edge_l0 / plan.downsample / k for edge_l0 in (rect_l0.x, rect_l0.y, rect_l0.right, rect_l0.bottom)
    )
    x, y = math.floor(left), math.floor(top)
    width, height = math.ceil(right) - x, math.ceil(bottom) - y
    return _LevelRegion(RectPx(x * k, y * k, width * k, height * k), (left - x, top - y, right - x, bottom - y))


@dataclass(frozen=True)
class _Reduced:
    pixels: NDArray[np.uint8]
    transparent_px: int


def _reduced(reader: RetryingReader, region: _LevelRegion, plan: ReadPlan) -> _Reduced | None:
    """The region's block means, read in bands of whole blocks, so that memory does not grow with the slide's scale."""
    rect, k = region.rect, plan.block_px
    band = max(1, BAND_BYTES // (4 * rect.width * k)) * k if k > 1 else rect.height
    parts: list[NDArray[np.uint8]] = []
    transparent = 0
    for y in range(rect.y, rect.bottom, band):
        part = reader.read_rgb(plan.level, RectPx(rect.x, y, rect.width, min(band, rect.bottom - y)))
        if part is None:
            return None
        with reader.watch.timing("resize"):
            parts.append(block_means(part.pixels, k))
        transparent += part.transparent_px
    return _Reduced(parts[0] if len(parts) == 1 else np.concatenate(parts), transparent)
