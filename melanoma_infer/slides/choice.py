"""Which reader gives a slide's tiles: the faster one where it gives OpenSlide's pixels on this very slide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from melanoma_infer.errors import SlideFormatError, UsageError
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.records import SlideFacts
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.base import Opener, RegionUnreadableError, SlideReader
from melanoma_infer.slides.openslide_reader import OpenSlideReader, shared_cache
from melanoma_infer.slides.tiff_reader import VENDORS, TiffReader
from melanoma_infer.slides.tile_cache import TileCache

ReaderChoice = Literal["auto", "openslide", "tiff"]
PROBE_PX = 256
"""Side of the regions on which two readers are compared, in level pixels."""


def reader_choice(text: str) -> ReaderChoice:
    """What a person typed.

    Raises:
        UsageError: it is none of the three.
    """
    for choice in get_args(ReaderChoice):
        if text == choice:
            return choice  # type: ignore[no-any-return]
    raise UsageError(f"--reader takes {', '.join(get_args(ReaderChoice))}.")


def choose_reader(
    path: Path, facts: SlideFacts, level: int, around: Iterable[tuple[int, int]], choice: ReaderChoice
) -> SlideFacts:
    """The facts of the reader to be used.

    Args:
        path: the slide.
        facts: by the reader that opened it.
        level: what will be read.
        around: (x, y) in level pixels: there, and in the level's far corner, the readers are compared.
        choice: "auto" takes TiffReader where it can decode that level and gives the same pixels.

    Raises:
        SlideFormatError: "tiff" was chosen, and cannot be had.
    """
    if facts.vendor in VENDORS and choice != "openslide":
        with TiffReader(path) as tiff, OpenSlideReader(path) as openslide:
            regions = _probes(facts.level_sizes[level], around)
            if tiff.decodes(level) and all(_same_pixels(tiff, openslide, level, region) for region in regions):
                return tiff.facts
    if choice == "tiff":
        raise SlideFormatError(
            "The tiles of this slide cannot be decoded directly, or not to OpenSlide's pixels. Use --reader auto."
        )
    return facts


def opener_of(facts: SlideFacts) -> Opener:
    """Opens a slide by that reader; all that it opens share one cache of decoded tiles."""
    if facts.reader == "tiff":
        tiles = TileCache()
        return lambda path, watch: TiffReader(path, tiles, watch)
    if facts.reader == "openslide":
        cache = shared_cache()
        return lambda path, _watch: OpenSlideReader(path, cache)
    return lambda path, _watch: open_slide(path)


def _probes(size: SizePx, around: Iterable[tuple[int, int]]) -> Iterator[RectPx]:
    for x, y in (*around, (size.width, size.height)):
        left, top = (max(0, min(at, side - PROBE_PX)) for at, side in ((x, size.width), (y, size.height)))
        yield RectPx(left, top, PROBE_PX, PROBE_PX).within(size)


def _same_pixels(tiff: SlideReader, openslide: SlideReader, level: int, region: RectPx) -> bool:
    """Whether both give the same, where the file holds pixels at all."""
    try:
        ours, theirs = tiff.read_region(level, region), openslide.read_region(level, region)
    except RegionUnreadableError:
        return False
    held = ours[..., 3] == 255 if ours.shape[2] == 4 else np.ones(ours.shape[:2], bool)
    return bool(np.array_equal(ours[held][:, :3], theirs[held][:, :3]) and (theirs[held][:, 3] == 255).all())
