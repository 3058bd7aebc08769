"""An open slide, which may be damaged in places.

OpenSlide's errors latch: after one failed read a handle refuses every later one. So a failed read is tried once more
on a fresh handle. A region that fails again is reported as missing; it is never filled in.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError, TransientIOError
from melanoma_infer.geometry import RectPx
from melanoma_infer.records import SlideFacts
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides.base import Closing, Opener, RegionUnreadableError, SlideReader


@dataclass(frozen=True)
class RgbRegion:
    """Opaque pixels, and the number of pixels inside the slide that are transparent: never scanned."""

    padded: NDArray[np.uint8]
    """uint8 (h, w, 3), or (h, w, 4) as the reader gave it, of which the fourth byte means nothing."""
    transparent_px: int

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (h, w, 3), perhaps a view."""
        return self.padded[..., :3]


class Slide(Closing):
    """An open slide: its facts and its pixels. It belongs to one thread at a time; other threads open their own.

    Args:
        path: the file.
        reader: an open reader of it.
        opener: opens another reader, in place of one that failed.
        watch: gets the time spent reading and decoding.
    """

    def __init__(self, path: Path, reader: SlideReader, opener: Opener, watch: Stopwatch | None = None) -> None:
        self.path = path
        self.facts: SlideFacts = reader.facts
        self.watch = watch or Stopwatch()
        self._opener = opener
        self._reader: SlideReader | None = reader
        self._owned = ExitStack()

    def read_rgb(self, level: int, rect_level: RectPx) -> RgbRegion | None:
        """The pixels of a rectangle in level pixels, which may reach beyond the slide; None if they cannot be read.

        Pixels outside the slide, and transparent ones, get the slide's background colour.
        """
        inside = rect_level.within(self.facts.level_sizes[level])
        if inside.area == 0:
            return RgbRegion(self._canvas(rect_level), 0)
        for _ in range(2):
            try:
                region = opaque(self.read_region(level, inside), self.facts.background)
                break
            except RegionUnreadableError:
                continue
        else:
            return None
        if inside == rect_level:
            return region
        canvas = self._canvas(rect_level)
        top, left = inside.y - rect_level.y, inside.x - rect_level.x
        canvas[top : top + inside.height, left : left + inside.width] = region.pixels
        return RgbRegion(canvas, region.transparent_px)

    def read_region(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        """A rectangle inside the slide as the reader gives it: RGB (h, w, 3) or RGBA (h, w, 4), in level pixels.

        Raises:
            RegionUnreadableError: the file is damaged there, or is gone. The next read gets a fresh handle.
        """
        try:
            if self._reader is None:
                self._reader = self._opener(self.path, self.watch)
            with self.watch.timing("read"):
                return self._reader.read_region(level, rect_level)
        except (SlideUnreadableError, SlideFormatError, TransientIOError) as error:
            raise RegionUnreadableError from error
        except RegionUnreadableError:
            self._close_reader()
            raise

    def owns(self, resource: AbstractContextManager[object]) -> None:
        """Close a resource together with the slide."""
        self._owned.enter_context(resource)

    def close(self) -> None:
        """Release the file and what the slide owns."""
        self._close_reader()
        self._owned.close()

    def _canvas(self, rect_level: RectPx) -> NDArray[np.uint8]:
        row = np.tile(np.array(self.facts.background, np.uint8), (rect_level.width, 1))
        canvas = np.empty((rect_level.height, rect_level.width, 3), np.uint8)
        canvas[:] = row  # row by row: pixel by pixel takes 18 times as long
        return canvas

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def opaque(pixels: NDArray[np.uint8], background: tuple[int, int, int]) -> RgbRegion:
    """RGB from straight-alpha RGBA over a colour; what is opaque is returned as it is."""
    if pixels.shape[2] == 3 or pixels[..., 3].min() == 255:
        return RgbRegion(pixels, 0)
    alpha = pixels[..., 3:].astype(np.uint32)
    mixed = pixels[..., :3] * alpha + np.array(background, np.uint32) * (255 - alpha)
    return RgbRegion(((mixed + 127) // 255).astype(np.uint8), int(np.count_nonzero(pixels[..., 3] == 0)))
