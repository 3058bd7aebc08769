"""The plane on which tissue is found: the slide at no more than 8 µm/px, or in no more than PLANE_PX_MAX pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.records import SlideFacts
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.block_means import block_means

PLANE_UM_PER_PX = 8.0
PLANE_PX_MAX = 1 << 23
"""537 mm² at 8 µm/px: larger scans get a plane of 16 µm/px or more, so that memory does not grow with the slide."""
BLOCK_PX = 1024
"""Side of the blocks in which the plane is read, in pixels of the level that it is read from."""
BLOCK_MIN_PX = 8
"""A block that cannot be read is halved down to this side, so that a damaged JPEG tile costs little around it."""


@dataclass(frozen=True)
class Plane:
    """The slide at low resolution: rgb uint8 (h, w, 3), unread bool (h, w), and its pixel in level-0 pixels."""

    rgb: NDArray[np.uint8]
    unread: NDArray[np.bool_]
    px_l0: float


def read_plane(slide: Slide, scale: Scale) -> Plane:
    """The whole slide, averaged over whole blocks of level pixels, read block by block."""
    facts = slide.facts
    level, factor = plane_level(facts, scale)
    size = facts.level_sizes[level]
    width, height = math.ceil(size.width / factor), math.ceil(size.height / factor)
    plane = Plane(
        rgb=np.full((height, width, 3), 255, np.uint8),
        unread=np.zeros((height, width), np.bool_),
        px_l0=factor * facts.level_downsamples[level],
    )
    side = max(BLOCK_MIN_PX, BLOCK_PX // factor)
    for y in range(0, height, side):
        for x in range(0, width, side):
            block = RectPx(x, y, min(side, width - x), min(side, height - y))
            _fill(plane, slide, level, factor, block)
    return plane


def plane_level(facts: SlideFacts, scale: Scale) -> tuple[int, int]:
    """The coarsest level that is fine enough, and the side of the blocks that bring it near 8 µm/px."""
    um = max(scale.x_um, scale.y_um)
    level = max((i for i, d in enumerate(facts.level_downsamples) if d * um <= PLANE_UM_PER_PX), default=0)
    return level, plane_block_px(facts.level_downsamples[level] * um, facts.level_sizes[level])


def plane_block_px(um_per_px: float, size: SizePx) -> int:
    """The side of the blocks that bring pixels of this scale near 8 µm/px.

    It is doubled until a plane of `size` has no more than PLANE_PX_MAX pixels.
    """
    side = max(1, math.floor(PLANE_UM_PER_PX / um_per_px))
    while (size.width / side) * (size.height / side) > PLANE_PX_MAX:
        side *= 2
    return side


def _fill(plane: Plane, slide: Slide, level: int, factor: int, block: RectPx) -> None:
    """Read one block of the plane, halving it where it cannot be read."""
    size = slide.facts.level_sizes[level]
    wanted = RectPx(block.x * factor, block.y * factor, block.width * factor, block.height * factor).within(size)
    region = slide.read_rgb(level, wanted)
    rows, columns = slice(block.y, block.bottom), slice(block.x, block.right)
    if region is not None:
        plane.rgb[rows, columns] = block_means(region.pixels, factor)
    elif max(block.width, block.height) <= BLOCK_MIN_PX:
        plane.unread[rows, columns] = True
    else:
        for part in _halves(block):
            _fill(plane, slide, level, factor, part)


def _halves(block: RectPx) -> list[RectPx]:
    if block.width >= block.height:
        left = block.width // 2
        return [
            RectPx(block.x, block.y, left, block.height),
            RectPx(block.x + left, block.y, block.width - left, block.height),
        ]
    top = block.height // 2
    return [
        RectPx(block.x, block.y, block.width, top),
        RectPx(block.x, block.y + top, block.width, block.height - top),
    ]
