"""Whole-slide formats through OpenSlide: SVS, NDPI, MRXS, SCN, BIF, DICOM and more. The only file that imports it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.records import SlideFacts, StatedScale
from melanoma_infer.slides.base import Closing, RegionUnreadableError
from melanoma_infer.slides.levels import Level, usable_levels
from melanoma_infer.slides.phantom_mark import PHANTOM_MARK
from melanoma_infer.slides.refusal import refusal
from melanoma_infer.slides.scale import OME, TiffTags, tiff_scales
from melanoma_infer.slides.tiff_pages import GENERIC

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
            levels = _levels(self._slide)
            own = self._slide.level_downsamples  # also where it is not the true one
            self._addressed = [(level.number, own[level.number]) for level in levels]
            self.facts = _facts(self._slide, levels)
        except openslide.OpenSlideError as error:
            self._slide.close()
            raise SlideUnreadableError("The slide's header is damaged. Copy the file again.") from error

    def read_region(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        """RGBA pixels (h, w, 4) of a rectangle in level pixels.

        Raises:
            RegionUnreadableError: the file is damaged there; OpenSlide then refuses every later read of this handle.
        """
        number, downsample = self._addressed[level]
        # OpenSlide takes whole level-0 pixels, so at fractional downsamples a level is read up to half a level-0 pixel
        # off; at whole ones this is exact.
        location_l0 = (round(rect_level.x * downsample), round(rect_level.y * downsample))
        try:
            image = self._slide.read_region(location_l0, number, (rect_level.width, rect_level.height))
        except openslide.OpenSlideError as error:
            raise RegionUnreadableError from error
        return np.asarray(image)

    def close(self) -> None:
        """Release the file."""
        self._slide.close()


def shared_cache() -> openslide.OpenSlideCache:
    """A cache of decoded tiles for several readers of one slide."""
    return openslide.OpenSlideCache(CACHE_BYTES)


def vendor_of(path: Path) -> str | None:
    """The vendor of the format that OpenSlide recognises; None if it does not know the file."""
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor


def knows(path: Path) -> bool:
    """Whether OpenSlide recognises the file."""
    return vendor_of(path) is not None


def _levels(slide: openslide.OpenSlide) -> list[Level]:
    """The levels that can be used, level 0 first.

    Raises:
        SlideUnreadableError: the header names impossible sizes.
    """
    sizes = [SizePx(*size) for size in slide.level_dimensions]
    if len(sizes) > LEVELS_MAX or not all(0 < size.width * size.height <= PIXELS_MAX for size in sizes):
        raise SlideUnreadableError("The slide's header names impossible sizes. Copy the file again.")
    sides = (
        [_number(slide.properties.get(f"openslide.level[{level}].tile-{side}")) or 0 for side in ("width", "height")]
        for level in range(len(sizes))
    )
    tiles = [SizePx(int(width), int(height)) for width, height in sides]  # 0 × 0 where OpenSlide does not say it
    if any(tile.width * tile.height > TILE_PIXELS_MAX for tile in tiles):
        raise SlideUnreadableError("The slide's header names impossible tiles. Copy the file again.")
    levels = zip(sizes, tiles, slide.level_downsamples, strict=True)
    return usable_levels([Level(number, *level) for number, level in enumerate(levels)])


def _facts(slide: openslide.OpenSlide, levels: Sequence[Level]) -> SlideFacts:
    properties = slide.properties
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "")[:40]
    stated = _stated_scales(properties, vendor, levels[0].size)
    try:
        background = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        red, green, blue = bytes.fromhex(background.removeprefix("#"))
    except ValueError:
        red, green, blue = 255, 255, 255
    return SlideFacts(
        reader="openslide",
        reader_version=f"{openslide.__library_version__}",
        vendor=vendor,
        size_l0=levels[0].size,
        level_downsamples=tuple(level.downsample for level in levels),
        level_sizes=tuple(level.size for level in levels),
        scale=stated[0].scale if stated else None,
        stated_scales=stated,
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        background=(red, green, blue),
        quickhash=properties.get(openslide.PROPERTY_NAME_QUICKHASH1),
        is_phantom=PHANTOM_MARK in properties.get(openslide.PROPERTY_NAME_COMMENT, ""),
        bounds=_bounds(properties, levels[0].size),
    )


def _stated_scales(properties: Mapping[str, str], vendor: str, size_l0: SizePx) -> tuple[StatedScale, ...]:
    """The scales that the file states, the one to use first.

    A scanner's TIFF tags only confirm or contradict it; a resolution for printing says nothing.
    """
    tags = TiffTags(
        _number(properties.get("tiff.XResolution")),
        _number(properties.get("tiff.YResolution")),
        properties.get("tiff.ResolutionUnit", ""),
        properties.get(openslide.PROPERTY_NAME_COMMENT, ""),
    )
    in_tags = tiff_scales(tags, size_l0)
    if vendor == GENERIC:  # no scanner has written any other
        return in_tags
    own = [_number(properties.get(name)) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)]
    if own[0] is None or own[1] is None:
        return tuple(each for each in in_tags if each.source == OME)
    plausible = (each for each in in_tags if not each.scale.implausible)
    return StatedScale("the scanner's properties", Scale(own[0], own[1])), *plausible


def _bounds(properties: Mapping[str, str], size_l0: SizePx) -> RectPx | None:
    """The scanned part of level 0; None if the file does not name one inside the slide."""
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    values = [_number(properties.get(name)) for name in names]
    bounds = RectPx(*(int(value) for value in values if value is not None)) if None not in values else None
    return bounds if bounds is not None and bounds.area > 0 and bounds == bounds.within(size_l0) else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
