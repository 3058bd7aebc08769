"""Sums over the blocks of a part of the scan, on the grid of blocks that begins at level-0 (0, 0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx
from melanoma_infer.tiles.block_means import block_sums


@dataclass(frozen=True)
class BlockSums:
    """Sums over the blocks that a rectangle touches, of its own pixels only.

    values: unsigned (rows, columns, 3) · rect: those blocks, in blocks.
    """

    values: NDArray[np.unsignedinteger]
    rect: RectPx

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], part: RectPx, side: int) -> BlockSums:
        """The sums of a part's pixels (h, w, 3) over blocks of side × side."""
        x, y = part.x // side, part.y // side
        values = pixels if side == 1 else block_sums(pixels, side, (part.y % side, part.x % side))
        return cls(values, RectPx(x, y, values.shape[1], values.shape[0]))

    def within(self, blocks: RectPx) -> NDArray[np.unsignedinteger]:
        """The values of some of its blocks, a view."""
        x, y = blocks.x - self.rect.x, blocks.y - self.rect.y
        return self.values[y : y + blocks.height, x : x + blocks.width]


def whole_blocks(part: RectPx, side: int) -> RectPx:
    """The part of a rectangle that is whole blocks, in pixels; its area is 0 if there is none."""
    x, y = -(-part.x // side) * side, -(-part.y // side) * side
    right, bottom = part.right // side * side, part.bottom // side * side
    return RectPx(x, y, max(0, right - x), max(0, bottom - y))


def in_blocks(rect: RectPx, side: int) -> RectPx:
    """A rectangle of whole blocks, in blocks."""
    return RectPx(rect.x // side, rect.y // side, rect.width // side, rect.height // side)


def pixels_of(pixels: NDArray[np.uint8], frame: RectPx, part: RectPx) -> NDArray[np.uint8]:
    """The pixels of a part of a frame, a view."""
    x, y = part.x - frame.x, part.y - frame.y
    return pixels[y : y + part.height, x : x + part.width]
