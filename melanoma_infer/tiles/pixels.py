"""One tile's pixels: a region of the slide, averaged over whole blocks and resized to the model's input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from melanoma_infer.geometry import RectPx
from melanoma_infer.records import NativeTile, ReadTile, Tile
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.bilinear import bilinear
from melanoma_infer.tiles.block_means import block_means
from melanoma_infer.tiles.read_plan import ReadPlan

BAND_BYTES = 1 << 25
"""A tile that is averaged over blocks is read in bands of about this many bytes: 32 MiB, whatever the slide's scale."""


@dataclass(frozen=True)
class TileBlocks:
    """Where a tile's pixels come from: the whole blocks around it, and the tile among them."""

    rect: RectPx
    """The blocks, in pixels of the level that is read."""
    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the tile in blocks, from the first block's corner."""

    @classmethod
    def of(cls, rect_l0: RectPx, plan: ReadPlan) -> TileBlocks:
        """The blocks of a tile in level-0 pixels."""
        k = plan.block_px
        left, top, right, bottom = (
            edge_l0 / plan.downsample / k for edge_l0 in (rect_l0.x, rect_l0.y, rect_l0.right, rect_l0.bottom)
        )
        x, y = math.floor(left), math.floor(top)
        width, height = math.ceil(right) - x, math.ceil(bottom) - y
        return cls(RectPx(x * k, y * k, width * k, height * k), (left - x, top - y, right - x, bottom - y))


def read_tile(slide: Slide, tile: Tile, plan: ReadPlan) -> ReadTile:
    """One tile's pixels, resized to the model's input; None if the slide cannot be read there."""
    blocks = TileBlocks.of(tile.rect_l0, plan)
    reduced = _reduced(slide, blocks.rect, plan)
    if reduced is None:
        return ReadTile(tile, None)
    with slide.watch.timing("resize"):
        return tile_of_means(tile, reduced.pixels, blocks, plan, transparent_px=reduced.transparent_px)


def tile_of_means(
    tile: Tile, means: NDArray[np.uint8], blocks: TileBlocks, plan: ReadPlan, *, transparent_px: int
) -> ReadTile:
    """A tile from the means of its blocks, resized to the model's input.

    Args:
        tile: the tile.
        means: uint8 (rows, columns, 3 or 4) of `blocks`, background where the slide ends; the level's own pixels if a
            block is one pixel.
        blocks: of the tile.
        plan: how pixels are made.
        transparent_px: pixels of `blocks` that were never scanned.
    """
    pixels = bilinear(means, plan.tile_px, blocks.box)
    if plan.equalised:
        pixels = np.array(ImageOps.equalize(Image.fromarray(pixels)))
    return ReadTile(tile, pixels, blank_fraction(tile, blocks, transparent_px))


def resized(tile: NativeTile) -> NDArray[np.uint8]:
    """A native tile as the CPU resizes it: uint8 (tile_px, tile_px, 3)."""
    k = tile.block_px
    pixels = tile.pixels[: tile.size[0] * k, : tile.size[1] * k]
    return bilinear(pixels if k == 1 else block_means(pixels[..., :3], k), tile.tile_px, tile.box)


def blank_fraction(tile: Tile, blocks: TileBlocks, transparent_px: int) -> float:
    """The share of a tile that was never scanned.

    The transparent share is that of whole blocks around the tile: it can be more than the tile has inside the slide.
    """
    return min(1.0, tile.outside_fraction + transparent_px / blocks.rect.area)


@dataclass(frozen=True)
class _Reduced:
    pixels: NDArray[np.uint8]
    """As RgbRegion.padded."""
    transparent_px: int


def _reduced(slide: Slide, rect: RectPx, plan: ReadPlan) -> _Reduced | None:
    """The block means of a rectangle in level pixels, read in bands of whole blocks: memory is bounded at any scale."""
    k = plan.block_px
    band = max(1, BAND_BYTES // (4 * rect.width * k)) * k if k > 1 else rect.height
    parts: list[NDArray[np.uint8]] = []
    transparent = 0
    for y in range(rect.y, rect.bottom, band):
        part = slide.read_rgb(plan.level, RectPx(rect.x, y, rect.width, min(band, rect.bottom - y)))
        if part is None:
            return None
        with slide.watch.timing("resize"):
            parts.append(part.padded if k == 1 else block_means(part.pixels, k))
        transparent += part.transparent_px
    return _Reduced(parts[0] if len(parts) == 1 else np.concatenate(parts), transparent)
