"""Which reader decodes a slide's tiles: the faster one if it gives OpenSlide's pixels on this very slide."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from melanoma_infer.errors import SlideFormatError, UsageError
from melanoma_infer.geometry import RectPx
from melanoma_infer.records import SlideFacts
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides.base import Closing, Opener, RegionUnreadableError, SlideReader
from melanoma_infer.slides.formats import open_reader
from melanoma_infer.slides.openslide_reader import OpenSlideReader, shared_cache
from melanoma_infer.slides.slide import Slide
from melanoma_infer.slides.tiff_reader import VENDORS, TiffReader
from melanoma_infer.slides.tile_cache import TileCache

ReaderChoice = Literal["auto", "openslide", "tiff"]
PROBE_PX = 256
"""Side of the regions on which two readers are compared, in level pixels."""


def reader_choice(text: str) -> ReaderChoice:
    """The choice that a user typed.

    Raises:
        UsageError: it is none of the three.
    """
    for choice in get_args(ReaderChoice):
        if text == choice:
            return choice  # type: ignore[no-any-return]
    raise UsageError(f"--reader takes {', '.join(get_args(ReaderChoice))}.")


class TileSource(Closing):
    """The chosen reader's facts, and handles of it that share one cache of decoded tiles.

    Args:
        facts: by the chosen reader.
        opener: opens a handle.
        ready: a handle that is open already and is handed out first.
    """

    def __init__(self, facts: SlideFacts, opener: Opener, ready: TiffReader | None = None) -> None:
        self.facts = facts
        self._opener = opener
        self._ready = [ready] if ready is not None else []

    def open(self, path: Path, watch: Stopwatch | None = None) -> Slide:
        """A handle for one thread."""
        watch = watch or Stopwatch()
        try:
            ready = self._ready.pop()  # atomic: several threads may ask at once
        except IndexError:
            return Slide(path, self._opener(path, watch), self._opener, watch)
        ready.watch = watch
        return Slide(path, ready, self._opener, watch)

    def close(self) -> None:
        """Release the handle that nobody asked for."""
        while self._ready:
            self._ready.pop().close()


def choose_reader(slide: Slide, level: int, around: Iterable[tuple[int, int]], choice: ReaderChoice) -> TileSource:
    """The reader that decodes the tiles of a slide; closed with the slide.

    Args:
        slide: opened for its facts.
        level: the level that will be read.
        around: (x, y) in level pixels: the readers are compared there and in the level's far corner.
        choice: "auto" takes TiffReader if it can decode that level and gives the same pixels.

    Raises:
        SlideFormatError: the choice is "tiff", and TiffReader cannot decode the level to the same pixels.
    """
    facts = slide.facts
    if facts.vendor in VENDORS and choice != "openslide":
        cache = TileCache()
        tiff = TiffReader(slide.path, facts, cache)
        size = facts.level_sizes[level]
        probes = [
            # Moved inside the level.
            RectPx(
                max(0, min(x, size.width - PROBE_PX)), max(0, min(y, size.height - PROBE_PX)), PROBE_PX, PROBE_PX
            ).within(size)
            for x, y in (*around, (size.width, size.height))
        ]
        if tiff.decodes(level) and all(_same_pixels(tiff, slide, level, probe) for probe in probes):
            source = TileSource(tiff.facts, lambda path, watch: TiffReader(path, facts, cache, watch), tiff)
            slide.owns(source)
            return source
        tiff.close()
    if choice == "tiff":
        raise SlideFormatError(
            "The tiles of this slide cannot be decoded directly to OpenSlide's pixels. Use --reader auto."
        )
    if facts.reader == "openslide":
        shared = shared_cache()
        return TileSource(facts, lambda path, _watch: OpenSlideReader(path, shared))
    return TileSource(facts, lambda path, _watch: open_reader(path))


def _same_pixels(tiff: SlideReader, slide: Slide, level: int, region: RectPx) -> bool:
    """Whether both readers give the same pixels, all of them scanned where ours has no alpha."""
    try:
        ours, theirs = tiff.read_region(level, region), slide.read_region(level, region)
    except RegionUnreadableError:
        return False
    covered = ours.shape[2] == 4 or (theirs[..., 3] == 255).all()
    return bool(covered and np.array_equal(ours, theirs[..., : ours.shape[2]]))
