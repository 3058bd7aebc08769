"""Tiles in an engine's own memory: as the slide has them where the engine can resize them, else resized."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.records import NativeTile, ReadTile, Tile
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.pixels import TileBlocks, blank_fraction
from melanoma_infer.tiles.read_plan import ReadPlan

NATIVE_PX_MAX = 2048
"""Larger tiles are read in bands and reduced on the CPU: less to upload, and bounded memory."""
SHRINK_MAX = 15
"""Pixels that become one in the bilinear resize: it needs two times as many weights, and a GPU's registers hold 32."""
RGBA = 4


class Frame(Protocol):
    """Memory that an engine uploads from; it may be used again when nothing refers to the frame any more."""

    @property
    def memory(self) -> NDArray[np.uint8]:
        """uint8 (n,)."""
        ...


TakeFrame = Callable[[int], Frame]
"""A frame of so many bytes. Any thread may take one; tiles in frames taken in order are uploaded together."""


@dataclass(frozen=True)
class NativeSize:
    """The pixels that hold any native tile of a slide, in whole blocks."""

    height: int
    width: int

    @property
    def nbytes(self) -> int:
        """In RGBA."""
        return self.height * self.width * RGBA


def native_size(plan: ReadPlan, tiles: Sequence[Tile]) -> NativeSize | None:
    """The size of a slide's native tiles; None if its tiles are resized on the CPU.

    That is so if they are equalised, larger than NATIVE_PX_MAX, or reduced by more than SHRINK_MAX.
    """
    if plan.equalised or not tiles:
        return None
    columns = {tile.rect_l0.x: tile for tile in tiles}.values()
    rows = {tile.rect_l0.y: tile for tile in tiles}.values()
    width = max(TileBlocks.of(tile.rect_l0, plan).rect.width for tile in columns)
    height = max(TileBlocks.of(tile.rect_l0, plan).rect.height for tile in rows)
    shrink = max(width, height) / plan.block_px / plan.tile_px
    if max(width, height) > NATIVE_PX_MAX or math.ceil(shrink) > SHRINK_MAX:
        return None
    return NativeSize(height, width)


def read_native(slide: Slide, tile: Tile, plan: ReadPlan, size: NativeSize, frame: Frame) -> ReadTile:
    """One tile's pixels before the resize, in a frame; None if the slide cannot be read there.

    What is transparent or outside the slide has the background's colour already.

    Args:
        slide: open.
        tile: one of those that `native_size` was asked about.
        plan: how tiles are made.
        size: of the slide's native tiles.
        frame: of so many bytes, gets the pixels.
    """
    blocks = TileBlocks.of(tile.rect_l0, plan)
    region = slide.read_rgb(plan.level, blocks.rect)
    if region is None:
        return ReadTile(tile, None)
    with slide.watch.timing("resize"):
        pixel = region.padded.shape[2]
        pixels = frame.memory[: size.height * size.width * pixel].reshape(size.height, size.width, pixel)
        pixels[: blocks.rect.height, : blocks.rect.width] = region.padded
    means = (blocks.rect.height // plan.block_px, blocks.rect.width // plan.block_px)
    native = NativeTile(pixels, means, blocks.box, plan.block_px, plan.tile_px, owner=frame)
    return ReadTile(tile, None, blank_fraction(tile, blocks, region.transparent_px), native)


def framed(read: ReadTile, frame: Frame) -> ReadTile:
    """A resized tile in a frame of its size, from where the engine uploads it; as it was if it has no pixels."""
    if read.pixels is None:
        return read
    pixels = frame.memory.reshape(read.pixels.shape)
    pixels[...] = read.pixels
    return replace(read, pixels=pixels, frame=frame)


def noise_tiles(tile_px: int) -> tuple[NativeTile, ...]:
    """Noise to check a GPU's resize with: a fractional box in RGBA, and block means in RGB."""
    random = np.random.default_rng(tile_px)
    tiles = []
    for block_px, pixel in ((1, 4), (2, 3)):
        side = 2 * tile_px + 1
        pixels = random.integers(0, 256, (side * block_px, side * block_px, pixel), np.uint8)
        box = (0.375, 0.0, side - 0.625, side - 1.0)
        tiles.append(NativeTile(pixels, (side, side), box, block_px, tile_px))
    return tuple(tiles)
