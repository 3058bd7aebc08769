"""A slide's own JPEG and JPEG 2000 tiles, decoded directly: OpenSlide's pixels at several times its rate.

OpenSlide gives the facts, reads levels that are not stored as such tiles, and decides about tiles that cannot be
decoded here or that the file leaves out: it fills them from finer levels, or they are transparent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.records import SlideFacts
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides.base import Closing
from melanoma_infer.slides.completeness import pages_of
from melanoma_infer.slides.openslide_reader import OpenSlideReader
from melanoma_infer.slides.tile_cache import TileCache

VENDORS = ("aperio", "generic-tiff")
"""Their levels are pages of adjacent tiles. Other vendors' tiles overlap or are displaced."""
JPEG, JPEG_2000_RGB = 7, 33005
"""TIFF's compression codes. Aperio's other JPEG 2000, 33003, would need OpenSlide's colour conversion."""
RGB, YCBCR = 2, 6
"""TIFF's codes for the colour space of a JPEG tile."""
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""The segment that names the colour space, without its last byte."""
_FAILED = (RuntimeError, ValueError, TypeError, OSError)
"""What the decoders raise on damaged tiles, and on tiles whose size is not the page's. simplejpeg is strict: like
OpenSlide it raises where libjpeg only warns. imagecodecs' JPEG decoder returns such pixels without a warning.
"""


class TiffReader(Closing):
    """A slide whose levels are pages of JPEG or JPEG 2000 tiles.

    Args:
        path: the slide.
        facts: what OpenSlide says of it.
        cache: shared by all readers of this slide; None for one of its own.
        watch: gets the time spent decoding.

    Raises:
        SlideUnreadableError: the file is not a TIFF.
    """

    def __init__(
        self, path: Path, facts: SlideFacts, cache: TileCache | None = None, watch: Stopwatch | None = None
    ) -> None:
        self.watch = watch or Stopwatch()
        self.facts = replace(facts, reader="tiff", reader_version=tifffile.__version__)
        self._path = path
        self._cache = cache or TileCache()
        self._openslide: OpenSlideReader | None = None
        try:
            self._tiff = tifffile.TiffFile(path)
        except (tifffile.TiffFileError, OSError) as error:
            raise SlideUnreadableError("The file is not a TIFF file. Use --reader openslide.") from error
        self._pages = _pages_of_levels(facts, self._tiff)

    def decodes(self, level: int) -> bool:
        """Whether that level is stored as tiles that are decoded here."""
        return level in self._pages

    def read_region(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        """Pixels of a rectangle in level pixels: (h, w, 3), or OpenSlide's (h, w, 4) where a tile is not decoded here.

        Raises:
            RegionUnreadableError: the file is damaged there.
        """
        page = self._pages.get(level)
        if page is None:
            return self._by_openslide(level, rect_level)
        pixels = np.empty((rect_level.height, rect_level.width, 3), np.uint8)
        for index, within_tile, within_region in page.tiles_of(rect_level):
            try:
                tile = self._cache.get((level, index), partial(self._decoded, page, index))
            except _FAILED:
                return self._by_openslide(level, rect_level)
            pixels[within_region] = tile[within_tile]
        return pixels

    def _decoded(self, page: _TiledPage, index: int) -> NDArray[np.uint8]:
        """The pixels (h, w, 3) of a tile. Raises one of `_FAILED`, also if it is missing from the file."""
        data = page.data(self._tiff, index)
        with self.watch.timing("decode"):
            return page.decoded(data)

    def _by_openslide(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        """The region as OpenSlide reads it, opened the first time that it is needed."""
        if self._openslide is None:
            self._openslide = OpenSlideReader(self._path)
        return self._openslide.read_region(level, rect_level)

    def close(self) -> None:
        """Release the file."""
        self._tiff.close()
        if self._openslide is not None:
            self._openslide.close()


@dataclass(frozen=True)
class _TiledPage:
    """A page of the file that holds one level."""

    page: Any
    size: SizePx
    tile: SizePx

    def tiles_of(self, rect: RectPx) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        """Each tile that overlaps a rectangle: its index, and the common part in the tile and in the rectangle."""
        across = -(-self.size.width // self.tile.width)
        for row in range(rect.y // self.tile.height, -(-rect.bottom // self.tile.height)):
            for column in range(rect.x // self.tile.width, -(-rect.right // self.tile.width)):
                in_tile_x, in_rect_x = _common(column * self.tile.width, self.tile.width, rect.x, rect.width)
                in_tile_y, in_rect_y = _common(row * self.tile.height, self.tile.height, rect.y, rect.height)
                yield row * across + column, (in_tile_y, in_tile_x), (in_rect_y, in_rect_x)

    def data(self, tiff: tifffile.TiffFile, index: int) -> bytes:
        """The bytes of a tile.

        Raises:
            ValueError: the file leaves it out.
        """
        if not self.page.databytecounts[index]:
            raise ValueError("the file leaves this tile out")
        tiff.filehandle.seek(self.page.dataoffsets[index])
        return bytes(tiff.filehandle.read(self.page.databytecounts[index]))

    def decoded(self, data: bytes) -> NDArray[np.uint8]:
        """The pixels (h, w, 3) of a tile.

        Raises:
            ValueError, RuntimeError: it is damaged, or its size is not the page's.
        """
        shape = (self.tile.height, self.tile.width, 3)
        if self.page.compression == JPEG_2000_RGB:
            from imagecodecs import jpeg2k_decode

            pixels = np.empty(shape, np.uint8)  # given, so that the tile's own header cannot ask for more
            jpeg2k_decode(data, out=pixels)
            return pixels
        whole = self._start + data.removeprefix(_SOI)
        height, width, *_ = simplejpeg.decode_jpeg_header(whole)
        if (height, width, 3) != shape:
            raise ValueError("the tile's size is not the page's")
        return np.asarray(simplejpeg.decode_jpeg(whole, strict=True))

    @cached_property
    def _start(self) -> bytes:
        """What the JPEG tiles of this page lack: the colour space, which libjpeg would guess, and the tables."""
        colours = _ADOBE + (b"\1" if self.page.photometric == YCBCR else b"\0")
        tables = self.page.jpegtables or b""
        return _SOI + colours + tables.removeprefix(_SOI).removesuffix(_EOI)


def _common(tile_start: int, tile_side: int, start: int, side: int) -> tuple[slice, slice]:
    """The overlap of a tile and a rectangle along one axis, in the coordinates of each."""
    low, high = max(tile_start, start), min(tile_start + tile_side, start + side)
    return slice(low - tile_start, high - tile_start), slice(low - start, high - start)


def _pages_of_levels(facts: SlideFacts, tiff: tifffile.TiffFile) -> dict[int, _TiledPage]:
    """The page of each level, if there is exactly one and it can be decoded here."""
    if facts.vendor not in VENDORS:
        return {}
    every: list[Any] = list(pages_of(tiff))
    decodable = [
        page
        for page in every
        if page.is_tiled
        and page.dtype == np.uint8
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and (page.compression == JPEG_2000_RGB or (page.compression == JPEG and page.photometric in (RGB, YCBCR)))
    ]
    found = {}
    for level, (size, downsample) in enumerate(zip(facts.level_sizes, facts.level_downsamples, strict=True)):
        pages = [page for page in decodable if SizePx(page.imagewidth, page.imagelength) == size]
        # At fractional downsamples OpenSlide interpolates between pixels.
        if len(pages) == 1 and downsample == round(downsample):
            page = pages[0]
            found[level] = _TiledPage(page, size, SizePx(page.tilewidth, page.tilelength))
    return found
