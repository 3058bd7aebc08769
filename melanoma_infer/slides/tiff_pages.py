"""What the pages of a TIFF without a scanner's mark hold: such a file may be anything.

Readers take the first page for the slide. It may be a thumbnail of a later one, one colour of several, or in an
encoding that they cannot read.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_infer.errors import SlideFormatError
from melanoma_infer.geometry import SizePx
from melanoma_infer.slides.completeness import complaints, pages_of
from melanoma_infer.slides.scale import TiffTags

DECODED = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000}
"""Compressions that OpenSlide or Pillow decodes in such files: none, fax, LZW, JPEG, deflate, PackBits, LZMA, ZSTD."""
NAMES = {
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    50001: "WebP",
    50002: "JPEG XL",
}
GREY = (0, 1)
"""TIFF's codes for grey pictures: white is zero, black is zero."""
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 6: 3}
"""TIFF's codes for the colour spaces that are read, with their channels: grey, RGB, a palette, YCbCr."""
SPACES = {4: "a mask", 5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "the raw data of a camera"}
UNITS = {2: "inch", 3: "centimeter"}
"""TIFF's codes for the unit of the resolution."""
ORIENTATION = 274
RESOLUTIONS, RESOLUTION_UNIT = (282, 283), 296
ALPHA = (1, 2)
"""TIFF's codes for extra samples that are alpha."""
CONVERT = "Convert it to a tiled, pyramidal TIFF in 8-bit RGB with JPEG, LZW or deflate compression."
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, OverflowError, OSError, struct.error)
"""What tifffile raises on a damaged file: completeness and the readers say so."""


def compression_name(code: int) -> str:
    """The name of a TIFF compression, for people."""
    from tifffile import COMPRESSION

    if code in NAMES:
        return NAMES[code]
    return COMPRESSION(code).name if code in set(COMPRESSION) else f"TIFF compression {code}"


def require_known_encoding(path: Path) -> None:
    """Require that the first page of a TIFF is in an encoding that the readers turn into the colours it means.

    Raises:
        SlideFormatError: it is not.
    """
    with _pages(path) as (_, pages):
        if not pages:
            return
        page = pages[0]
        if page.compression not in DECODED:
            what = f"compressed with {compression_name(page.compression)}"
        elif page.number_format != 1 or page.bits != 8:  # many cameras fill 12 of 16 bits, and no tag says so
            kind = {2: "signed integers", 3: "floating-point numbers"}.get(page.number_format, "integers")
            what = f"{page.bits}-bit {kind}"
        elif page.photometric not in COLOURS:
            what = SPACES.get(page.photometric, f"in the colour space {page.photometric} of TIFF")
        elif page.is_grey and page.channels > 1:
            what = f"{page.channels} channels without a colour"
        elif page.channels != COLOURS[page.photometric]:
            # OpenSlide takes the fourth channel for alpha, whatever it is.
            what = f"{page.channels} channels besides alpha in place of {COLOURS[page.photometric]}"
        elif page.orientation != 1:
            # OpenSlide turns the pixels of each tile and leaves the tiles where they are.
            what = f"turned or mirrored (TIFF orientation {page.orientation}; only 1 is read)"
        else:
            return
    raise SlideFormatError(f"The slide's pixels are {what}, which cannot be read. {CONVERT}")


def scale_tags(path: Path) -> TiffTags:
    """What the first page of a TIFF says of its scale; nothing if it is no TIFF or is damaged."""
    from tifffile import TiffFile, TiffFileError

    with complaints():
        try:
            with TiffFile(path) as tiff:
                page: Any = tiff.pages[0]
                per_unit = [_per_unit(page.tags.valueof(code)) for code in RESOLUTIONS]
                unit = UNITS.get(page.tags.valueof(RESOLUTION_UNIT, 2), "")
                return TiffTags(per_unit[0], per_unit[1], unit, page.description)
        except (TiffFileError, *_DAMAGED):
            return TiffTags(None, None, "", "")


def _per_unit(value: Any) -> float | None:
    """A resolution as a number; None if it is missing or no number (0/0)."""
    numerator, denominator = value if isinstance(value, tuple) else (value or 0, 1)
    return numerator / denominator if denominator and math.isfinite(numerator) else None


def require_whole_picture(path: Path, size_l0: SizePx) -> None:
    """Require that what was opened is the file's largest picture, and all its colours.

    Args:
        path: a TIFF.
        size_l0: of what was opened.

    Raises:
        SlideFormatError: a page is larger, or several grey pages are one picture.
    """
    with _pages(path) as (tiff, pages):
        for number, page in enumerate(pages, start=1):
            if page.size.width * page.size.height > size_l0.width * size_l0.height:
                raise SlideFormatError(
                    f"The first page has {size_l0.width} × {size_l0.height} px, but page {number} is larger, "
                    f"{page.size.width} × {page.size.height} px: the first one may be a thumbnail. "
                    f"Save page {number} as a TIFF of its own."
                )
        grey = sum(page.is_grey and page.size == size_l0 for page in pages)
        if not grey:
            return
        # OME-XML and ImageJ state planes that may be in other files or behind one page.
        stated = [int(number) for number in re.findall(r'\bSizeC="(\d{1,6})"', tiff.ome_metadata or "")]
        images = (tiff.imagej_metadata or {}).get("images")
        planes = max([grey, *stated, *([images] if isinstance(images, int) else [])])
        if planes > 1:
            raise SlideFormatError(
                f"The file holds {planes} grey pages of {size_l0.width} × {size_l0.height} px: each page holds one "
                "colour, not the slide. Save them together as one RGB picture, a tiled, pyramidal TIFF."
            )


@dataclass(frozen=True)
class _Page:
    """What a page says of its pixels; `channels` leaves alpha out."""

    size: SizePx
    compression: int
    number_format: int
    bits: int
    channels: int
    photometric: int
    orientation: int

    @property
    def is_grey(self) -> bool:
        """Whether it holds one colour."""
        return self.photometric in GREY


def _described(page: Any) -> _Page:
    """The page as a record. Raises TypeError where its tags make no sense, such as another depth for each channel."""
    return _Page(
        size=SizePx(int(page.imagewidth), int(page.imagelength)),
        compression=int(page.compression),
        number_format=int(page.sampleformat),
        bits=int(page.bitspersample),
        channels=int(page.samplesperpixel) - sum(kind in ALPHA for kind in page.extrasamples),
        photometric=int(page.photometric),
        orientation=int(page.tags.valueof(ORIENTATION, 1)),
    )


@contextmanager
def _pages(path: Path) -> Iterator[tuple[Any, list[_Page]]]:
    """The open TIFF and its pages, those in SubIFDs after their own page; none if it is damaged."""
    from tifffile import TiffFile, TiffFileError

    with complaints():
        try:
            tiff = TiffFile(path)
        except (TiffFileError, *_DAMAGED):
            yield None, []
            return
        with tiff:
            try:
                pages = [_described(each) for page in pages_of(tiff) for each in (page, *(page.pages or ()))]
            except (TiffFileError, *_DAMAGED):
                pages = []
            yield tiff, pages
