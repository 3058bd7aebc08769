"""Pixels from a slide that may be damaged in places.

OpenSlide's errors latch: after one failed read a handle refuses every other. So a failed read is tried once more on a
fresh handle, and what fails again is missing: never white, never another region's fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError, TransientIOError
from melanoma_infer.geometry import RectPx
from melanoma_infer.records import SlideFacts
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.base import Closing, Opener, RegionUnreadableError, SlideReader


@dataclass(frozen=True)
class RgbRegion:
    """Opaque pixels uint8 (h, w, 3), and how many of those inside the slide are transparent: never scanned."""

    pixels: NDArray[np.uint8]
    transparent_px: int


class RetryingReader(Closing):
    """A slide that is opened again after a failed read. It belongs to one thread at a time.

    Args:
        path: the slide.
        opener: how it is opened; None for open_slide.
    """

    def __init__(self, path: Path, opener: Opener | None = None) -> None:
        self.watch = Stopwatch()
        """Time spent in reading and decoding by this reader's thread."""
        self._path = path
        self._opener = opener
        self._reader: SlideReader | None = self._open()
        self.facts: SlideFacts = self._reader.facts

    def read_rgb(self, level: int, rect_level: RectPx) -> RgbRegion | None:
        """The pixels of a rectangle in level pixels, which may reach beyond the slide; None where they cannot be read.

        What lies outside the slide, or is transparent, has the slide's background colour.
        """
        inside = rect_level.within(self.facts.level_sizes[level])
        if inside.area == 0:
            return RgbRegion(self._canvas(rect_level), 0)
        pixels = self._read_twice(level, inside)
        if pixels is None:
            return None
        region = _opaque(pixels, self.facts.background)
        if inside == rect_level:
            return region
        canvas = self._canvas(rect_level)
        top, left = inside.y - rect_level.y, inside.x - rect_level.x
        canvas[top : top + inside.height, left : left + inside.width] = region.pixels
        return RgbRegion(canvas, region.transparent_px)

    def _canvas(self, rect_level: RectPx) -> NDArray[np.uint8]:
        canvas = np.empty((rect_level.height, rect_level.width, 3), np.uint8)
        canvas[:] = self.facts.background
        return canvas

    def _read_twice(self, level: int, rect_level: RectPx) -> NDArray[np.uint8] | None:
        for _ in range(2):
            reader = self._opened()
            if reader is None:
                return None
            try:
                with self.watch.timing("read"):
                    return reader.read_region(level, rect_level)
            except RegionUnreadableError:
                self.close()
        return None

    def _opened(self) -> SlideReader | None:
        """The open slide; None where it can no longer be opened, as when the file was taken away."""
        if self._reader is None:
            try:
                self._reader = self._open()
            except (SlideUnreadableError, SlideFormatError, TransientIOError):
                return None
        return self._reader

    def _open(self) -> SlideReader:
        return open_slide(self._path) if self._opener is None else self._opener(self._path, self.watch)

    def close(self) -> None:
        """Release the file."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def _opaque(pixels: NDArray[np.uint8], background: tuple[int, int, int]) -> RgbRegion:
    """RGB (h, w, 3) of straight-alpha RGBA over a colour; RGB as it is."""
    if pixels.shape[2] == 3 or pixels[..., 3].min() == 255:
        return RgbRegion(pixels[..., :3], 0)
    alpha = pixels[..., 3:].astype(np.uint32)
    mixed = pixels[..., :3] * alpha + np.array(background, np.uint32) * (255 - alpha)
    return RgbRegion(((mixed + 127) // 255).astype(np.uint8), int(np.count_nonzero(pixels[..., 3] == 0)))
