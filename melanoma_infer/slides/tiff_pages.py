"""What the pages of a TIFF hold, by whichever program it was written.

Readers take the first page for the slide. It may be a thumbnail of a later one, one colour or one plane of several, or
in an encoding that they cannot read or read in wrong colours.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_infer.errors import SlideFormatError
from melanoma_infer.geometry import SizePx
from melanoma_infer.slides.completeness import complaints, pages_of
from melanoma_infer.slides.image_description import ome_planes
from melanoma_infer.slides.scale import TiffTags

GENERIC, APERIO = "generic-tiff", "aperio"
"""OpenSlide's vendors of a TIFF without a scanner's mark, which may be anything, and of an SVS."""
NONE, JPEG, APERIO_JPEG_2000 = 1, (6, 7), (33003, 33005)
DECODED = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000}
"""Compressions that OpenSlide or Pillow decodes without a scanner's mark: none, fax, LZW, JPEG, deflate, PackBits,
LZMA, ZSTD."""
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
PALETTE, YCBCR = 3, 6
COLOURS = {0: 1, 1: 1, 2: 3, PALETTE: 1, YCBCR: 3}
"""TIFF's codes for the colour spaces that are read, with their channels: grey, RGB, a palette, YCbCr."""
SPACES = {4: "a mask", 5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "the raw data of a camera"}
UNITS = {2: "inch", 3: "centimeter"}
"""TIFF's codes for the unit of the resolution."""
ORIENTATION = 274
REDUCED = 1
"""TIFF's bit for a page that is a smaller copy of another one."""
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


def require_known_encoding(path: Path, vendor: str | None) -> None:
    """Require that the pages which are read as the slide are in an encoding that gives the colours it means.

    Args:
        path: the slide; one that is no TIFF is left to its reader.
        vendor: by OpenSlide; None if it does not know the file.

    Raises:
        SlideFormatError: they are not.
    """
    with _pages(path) as (_, pages):
        misread = next((what for what in (_misread(page, vendor) for page in _levels(pages, vendor)) if what), None)
    if misread:
        raise SlideFormatError(f"The slide's pixels are {misread}, which cannot be read. {CONVERT}")


def _levels(pages: list[_Page], vendor: str | None) -> list[_Page]:
    """The pages that are read as the slide; a label, a thumbnail and an overview picture are not among them."""
    if vendor is None:
        return pages[:1]
    tiled = [page for page in pages if page.is_tiled]
    return [page for page in tiled if page is pages[0] or page.is_reduced] if vendor == GENERIC else tiled


def _misread(page: _Page, vendor: str | None) -> str | None:
    """What a page's pixels are, if the readers do not turn them into the colours they mean."""
    if vendor in (None, GENERIC) and page.compression not in DECODED:  # in a scanner's file, OpenSlide names it
        return f"compressed with {compression_name(page.compression)}"
    if page.number_format != 1 or page.bits != 8:  # many cameras fill 12 of 16 bits, and no tag says so
        kind = {2: "signed integers", 3: "floating-point numbers"}.get(page.number_format, "integers")
        return f"{page.bits}-bit {kind}"
    if page.photometric not in COLOURS:
        return SPACES.get(page.photometric, f"in the colour space {page.photometric} of TIFF")
    if page.is_grey and page.channels > 1:
        return f"{page.channels} channels without a colour"
    if page.channels != COLOURS[page.photometric]:
        # OpenSlide takes the fourth channel for alpha, whatever it is.
        return f"{page.channels} channels besides alpha in place of {COLOURS[page.photometric]}"
    if page.channels != 3 and page.compression in APERIO_JPEG_2000:
        return "one channel compressed with JPEG 2000"
    if page.photometric == PALETTE and page.compression in JPEG:  # near colours may be far apart in the palette
        return "a palette compressed with JPEG"
    if page.photometric == YCBCR and page.compression == NONE:  # Pillow ignores that colours have fewer pixels
        return "YCbCr without compression"
    if page.orientation != 1:
        # OpenSlide turns the pixels of each tile and leaves the tiles where they are.
        return f"turned or mirrored (TIFF orientation {page.orientation}; only 1 is read)"
    return None


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


def require_whole_picture(path: Path, vendor: str | None, size_l0: SizePx) -> None:
    """Require that what was opened is the file's largest picture, all its colours, and its only plane.

    Of scanners' files, only Aperio's are checked: in others, pages of one size are areas that OpenSlide puts together
    (Leica), or focal planes of which the file names the nominal one (Hamamatsu).

    Args:
        path: the slide; one that is no TIFF is left to its reader.
        vendor: by OpenSlide; None if it does not know the file.
        size_l0: of what was opened.

    Raises:
        SlideFormatError: a page is larger, or several pages are one picture or planes of the slide.
    """
    if vendor not in (None, GENERIC, APERIO):
        return
    with _pages(path) as (tiff, pages):
        if not pages:
            return
        # An SVS of a small area has larger pictures of the glass, which are not tiled.
        counted = {number: page for number, page in enumerate(pages, 1) if page.is_tiled or vendor != APERIO}
        for number, page in counted.items():
            if page.size.width * page.size.height > size_l0.width * size_l0.height:
                raise SlideFormatError(
                    f"The first page has {size_l0.width} × {size_l0.height} px, but page {number} is larger, "
                    f"{page.size.width} × {page.size.height} px: the first one may be a thumbnail. "
                    f"Save page {number} as a TIFF of its own."
                )
        first = pages[0]
        images = (tiff.imagej_metadata or {}).get("images")
        # OME-XML and ImageJ state planes that may be in other files or behind one page.
        planes = max(
            sum(page.depth for page in counted.values() if page is first or page.is_like(first)),
            ome_planes(first.description, size_l0) // max(1, first.channels),
            images if isinstance(images, int) else 0,
        )
    if planes > 1:
        what = (
            "grey pages of {}: each page holds one colour, not the slide. Save them together as one RGB picture, a "
            "tiled, pyramidal TIFF."
            if first.is_grey
            else "pictures of {}, such as colours, focal planes, time points or scenes, and only one can be scored. "
            "Save the right one as a TIFF of its own."
        )
        raise SlideFormatError(f"The file holds {planes} {what.format(f'{size_l0.width} × {size_l0.height} px')}")


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
    depth: int
    is_tiled: bool
    is_reduced: bool
    description: str

    def is_like(self, first: _Page) -> bool:
        """Whether it may be another plane of the first one, and neither a level nor a mask of it."""
        alike = (self.size, self.channels) == (first.size, first.channels)
        return alike and self.photometric in COLOURS and not self.is_reduced

    @property
    def is_grey(self) -> bool:
        """Whether it holds one colour."""
        return self.photometric in GREY


def _described(page: Any) -> _Page:
    """The page as a record."""
    return _Page(
        size=SizePx(int(page.imagewidth), int(page.imagelength)),
        compression=int(page.compression),
        number_format=int(np.max(page.sampleformat)),  # a number for each channel if they differ
        bits=int(np.max(page.bitspersample)),
        channels=int(page.samplesperpixel) - sum(kind in ALPHA for kind in page.extrasamples),
        photometric=int(page.photometric),
        orientation=int(page.tags.valueof(ORIENTATION, 1)),
        depth=int(page.imagedepth),
        is_tiled=bool(page.is_tiled),
        is_reduced=bool(int(page.subfiletype) & REDUCED),
        description=page.description,
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
