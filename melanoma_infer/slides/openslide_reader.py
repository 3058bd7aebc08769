"""Whole-slide formats through OpenSlide: SVS, NDPI, MRXS, SCN, BIF, DICOM and more. The only file that imports it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.records import SlideFacts
from melanoma_infer.slides.base import Closing, RegionUnreadableError
from melanoma_infer.slides.phantom_mark import PHANTOM_MARK
from melanoma_infer.slides.refusal import refusal

LEVELS_MAX = 64
PIXELS_MAX = 1 << 40
"""A slide of 75 × 25 mm at 0.1 µm/px has 2^37.4 pixels; a header with more is wrong."""

CACHE_BYTES = 1 << 26
"""Decoded tiles that all handles of a slide keep together: 64 MiB."""
TILE_PIXELS_MAX = 1 << 30
"""OpenSlide allocates one whole tile of the file, and aborts the process if that fails."""


class OpenSlideReader(Closing):
    """A slide opened by OpenSlide.

    Args:
        path: the slide.
        cache: from shared_cache, for several readers of one slide; None for one of its own.
    """

    def __init__(self, path: Path, cache: openslide.OpenSlideCache | None = None) -> None:
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise refusal(path) from error
        except openslide.OpenSlideError as error:
            raise refusal(path, str(error)) from error
        if cache is not None:
            self._slide.set_cache(cache)
        try:
            self.facts = _facts(self._slide)
        except openslide.OpenSlideError as error:
            self._slide.close()
            raise SlideUnreadableError("The slide's header is damaged. Copy the file again.") from error

    def read_region(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        """RGBA pixels (h, w, 4) of a rectangle in level pixels.

        Raises:
            RegionUnreadableError: the file is damaged there; OpenSlide then refuses every later read of this handle.
        """
        downsample = self.facts.level_downsamples[level]
        # OpenSlide takes whole level-0 pixels, so at fractional downsamples a level is read up to half a level-0 pixel
        # off; at whole ones this is exact.
        location_l0 = (round(rect_level.x * downsample), round(rect_level.y * downsample))
        try:
            image = self._slide.read_region(location_l0, level, (rect_level.width, rect_level.height))
        except openslide.OpenSlideError as error:
            raise RegionUnreadableError from error
        return np.asarray(image)

    def close(self) -> None:
        """Release the file."""
        self._slide.close()


def shared_cache() -> openslide.OpenSlideCache:
    """A cache of decoded tiles for several readers of one slide."""
    return openslide.OpenSlideCache(CACHE_BYTES)


def knows(path: Path) -> bool:
    """Whether OpenSlide recognises the file."""
    return openslide.OpenSlide.detect_format(path) is not None


def _facts(slide: openslide.OpenSlide) -> SlideFacts:
    properties = slide.properties
    sizes = tuple(SizePx(*size) for size in slide.level_dimensions)
    if len(sizes) > LEVELS_MAX or not all(0 < size.width * size.height <= PIXELS_MAX for size in sizes):
        raise SlideUnreadableError("The slide's header names impossible sizes. Copy the file again.")
    for level in range(len(sizes)):
        width, height = (
            _number(properties.get(f"openslide.level[{level}].tile-{side}")) for side in ("width", "height")
        )
        if (width or 0) * (height or 0) > TILE_PIXELS_MAX:
            raise SlideUnreadableError("The slide's header names impossible tiles. Copy the file again.")
    x_um, y_um = (
        _number(properties.get(name)) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    )
    return SlideFacts(
        reader="openslide",
        reader_version=f"{openslide.__library_version__}",
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "")[:40],
        size_l0=sizes[0],
        level_downsamples=tuple(slide.level_downsamples),
        level_sizes=sizes,
        scale=Scale(x_um, y_um) if x_um is not None and y_um is not None else None,
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        background=_background(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)),
        quickhash=properties.get(openslide.PROPERTY_NAME_QUICKHASH1),
        is_phantom=PHANTOM_MARK in properties.get(openslide.PROPERTY_NAME_COMMENT, ""),
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _background(text: str | None) -> tuple[int, int, int]:
    try:
        red, green, blue = bytes.fromhex((text or "ffffff").removeprefix("#"))
    except ValueError:
        return (255, 255, 255)
    return red, green, blue
