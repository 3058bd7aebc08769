"""Whether the levels of a slide show the same picture: tissue is found on one, and tiles are read from another.

A converter may write a level in wrong colours (YCbCr that the file calls RGB), or put another scan's level into a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.geometry import RectPx
from melanoma_infer.records import Tissue
from melanoma_infer.slides.slide import Slide

PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where colours are compared, as positions in the list of all tissue pixels."""
SIDE_PX = 8
"""Side of a place in pixels of the coarser of the two: levels are often shifted by a part of a pixel."""
COLOUR_STEPS = 24.0
"""How far mean colours may be apart, of 255 steps of a channel; levels made from one another are within 5."""


def require_same_picture(slide: Slide, tissue: Tissue, levels: Iterable[int]) -> None:
    """Require that levels have the colours of the plane on which tissue was found, at most of a few places.

    Args:
        slide: the open slide.
        tissue: found on the slide.
        levels: the levels to compare with its thumbnail.

    Raises:
        SlideUnreadableError: one has not.
    """
    if tissue.thumbnail is None or len(slide.facts.level_sizes) == 1:
        return
    for level in sorted(set(levels)):
        side = math.ceil(SIDE_PX * max(1.0, slide.facts.level_downsamples[level] / tissue.px_l0))
        places = _places(tissue, tissue.thumbnail, side)
        pairs = [(shown, read) for shown, place in places if (read := _colour(slide, level, place)) is not None]
        pairs.sort(key=_apart)
        if not pairs or _apart(middle := pairs[len(pairs) // 2]) <= COLOUR_STEPS:
            continue
        shown, read = middle
        raise SlideUnreadableError(
            f"The levels of this slide do not show the same picture: the same place is {_named(read)} on level {level} "
            f"and {_named(shown)} on the one that shows the whole slide (red, green, blue). One of them has wrong "
            "colours or is of another scan. Export the slide again."
        )


def _places(tissue: Tissue, thumbnail: NDArray[np.uint8], side: int) -> Iterable[tuple[NDArray[np.float64], RectPx]]:
    """The mean colour (3,) of each place of `side` pixels of the thumbnail, and its rectangle in l0 pixels.

    Places that were not read, or not scanned, are left out.
    """
    height, width = tissue.mask.shape
    candidates = np.flatnonzero(tissue.mask if tissue.mask.any() else ~tissue.unread)
    for at in {int(candidates[int(share * len(candidates))]) for share in PLACES if len(candidates)}:
        y, x = (
            max(0, min(where - side // 2, n - side))
            for where, n in zip(divmod(at, width), (height, width), strict=True)
        )
        end_y, end_x = min(y + side, height), min(x + side, width)
        block = thumbnail[y:end_y, x:end_x].reshape(-1, 3)
        if tissue.unread[y:end_y, x:end_x].any() or (block == block[0]).all():
            continue
        left, top, right, bottom = (round(edge * tissue.px_l0) for edge in (x, y, end_x, end_y))
        yield block.mean(axis=0), RectPx(left, top, right - left, bottom - top)


def _colour(slide: Slide, level: int, rect_l0: RectPx) -> NDArray[np.float64] | None:
    """The mean colour (3,) of a rectangle on a level; None if a part of it cannot be read, or was not scanned."""
    downsample = slide.facts.level_downsamples[level]
    x, y, right, bottom = (round(edge / downsample) for edge in (rect_l0.x, rect_l0.y, rect_l0.right, rect_l0.bottom))
    rect = RectPx(x, y, max(1, right - x), max(1, bottom - y)).within(slide.facts.level_sizes[level])
    region = slide.read_rgb(level, rect)
    return region.pixels.mean(axis=(0, 1)) if region and rect.area and not region.transparent_px else None


def _apart(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> float:
    return float(np.abs(pair[0] - pair[1]).max())


def _named(colour: NDArray[np.float64]) -> str:
    return ", ".join(f"{channel:.0f}" for channel in colour)
