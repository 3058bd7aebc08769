"""Tiles whose pixels arrive: each holds the sums over the blocks of its resize until it is complete."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.records import ReadTile, Tile
from melanoma_infer.scan.blocks import BlockSums, in_blocks, pixels_of
from melanoma_infer.tiles.block_means import rounded_means, run_lengths
from melanoma_infer.tiles.grid import Geometry, GridAxis
from melanoma_infer.tiles.pixels import TileBlocks, tile_of_means
from melanoma_infer.tiles.read_plan import ReadPlan


class TileSums:
    """One tile on its way: the sums of its blocks, and how many of their pixels have arrived.

    Args:
        rect_l0: the tile.
        reading: how its pixels are made.
    """

    def __init__(self, rect_l0: RectPx, reading: ReadPlan) -> None:
        self.rect_l0, self._reading = rect_l0, reading
        self.blocks = TileBlocks.of(rect_l0, reading)
        blocks = in_blocks(self.blocks.rect, reading.block_px)
        self._in_blocks = blocks
        self._sums = np.zeros((blocks.height, blocks.width, 3), np.min_scalar_type(255 * reading.block_px**2))
        self._arrived = 0
        self._transparent_px = 0

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._sums.nbytes

    def is_complete(self, size_l0: SizePx) -> bool:
        """Whether all its pixels inside a scan of this size have arrived."""
        return self._arrived == self.blocks.rect.within(size_l0).area

    def add(self, part: RectPx, sums: BlockSums, alpha: NDArray[np.uint8] | None) -> None:
        """Add pixels that have not arrived before.

        Args:
            part: where they are, perhaps beside the tile.
            sums: of them, over blocks.
            alpha: (h, w) of `part`, 0 where nothing was scanned; None: all was.
        """
        inside = self.blocks.rect.overlap(part)
        if not inside.area:
            return
        blocks = self._in_blocks.overlap(sums.rect)
        self._of(blocks)[...] += sums.within(blocks).astype(self._sums.dtype, copy=False)
        self._arrived += inside.area
        if alpha is not None:
            self._transparent_px += int(np.count_nonzero(pixels_of(alpha, part, inside) == 0))

    def contradicts(self, sums: BlockSums) -> bool:
        """Whether whole blocks of pixels that arrived again differ from what arrived first."""
        blocks = self._in_blocks.overlap(sums.rect)
        return bool(blocks.area) and not np.array_equal(self._of(blocks), sums.within(blocks))

    def read(self, tile: Tile, size_l0: SizePx, background: tuple[int, int, int]) -> ReadTile:
        """The pixels of the complete tile, as read_tile gives them: background where the scan ends."""
        side, blocks = self._reading.block_px, self.blocks
        inside = blocks.rect.within(size_l0)
        means = self._sums
        if side > 1 or inside != blocks.rect:
            down, across = (np.zeros(length, np.uint32) for length in self._sums.shape[:2])
            rows, columns = run_lengths(0, inside.height, side), run_lengths(0, inside.width, side)
            down[: len(rows)], across[: len(columns)] = rows, columns
            outside = np.uint32(side**2) - (down[:, None] * across[None, :])[..., None]
            means = rounded_means(self._sums + outside * np.array(background, np.uint32), np.array(side**2, np.uint32))
        return tile_of_means(tile, means, blocks, self._reading, transparent_px=self._transparent_px)

    def _of(self, blocks: RectPx) -> NDArray[np.unsignedinteger]:
        x, y = blocks.x - self._in_blocks.x, blocks.y - self._in_blocks.y
        return self._sums[y : y + blocks.height, x : x + blocks.width]


class ArrivingTiles:
    """The tiles of a scan that are not complete yet.

    Args:
        geometry: of the tiles.
        scale: µm per level-0 pixel.
        reading: how their pixels are made.
        size_l0: of the scan, or UNBOUNDED.
    """

    def __init__(self, geometry: Geometry, scale: Scale, reading: ReadPlan, size_l0: SizePx) -> None:
        self._across, self._down = GridAxis.both(geometry, scale)
        self._reading, self._size_l0 = reading, size_l0
        self.block_px = reading.block_px
        self._tiles: dict[tuple[int, int], TileSums] = {}
        self._complete: set[tuple[int, int]] = set()
        self.nbytes = 0
        """Memory in use."""

    @property
    def tile_nbytes(self) -> int:
        """The memory of one tile."""
        return TileSums(RectPx(0, 0, self._across.length_l0, self._down.length_l0), self._reading).nbytes

    @property
    def row_nbytes(self) -> int:
        """The memory of one row of tiles across a scan of known size."""
        return self.tile_nbytes * len(self._across.starts(0, self._size_l0.width))

    def add(self, part: RectPx, pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> list[TileSums]:
        """Add pixels (h, w, 3) that have not arrived before; the tiles that are complete now.

        Args:
            part: where they are.
            pixels: of the part.
            alpha: (h, w), 0 where nothing was scanned; None: all was.
        """
        sums = BlockSums.of(pixels, part, self._reading.block_px)
        complete: list[TileSums] = []
        for at in self._touching(part):
            if at in self._complete:
                continue
            tile = self._tiles.get(at)
            if tile is None:
                tile = TileSums(RectPx(*at, self._across.length_l0, self._down.length_l0), self._reading)
                if not tile.blocks.rect.overlap(part).area:
                    continue
                self._tiles[at] = tile
                self.nbytes += tile.nbytes
            tile.add(part, sums, alpha)
            if tile.is_complete(self._size_l0):
                self._complete.add(at)
                complete.append(self._tiles.pop(at))
                self.nbytes -= tile.nbytes
        return complete

    def contradicts(self, part: RectPx, pixels: NDArray[np.uint8]) -> bool:
        """Whether whole blocks of pixels that arrived again differ from what arrived first.

        Only tiles that are not complete are compared: the pixels of the others are gone.
        """
        sums = BlockSums.of(pixels, part, self._reading.block_px)
        held = (self._tiles.get(at) for at in self._touching(part))
        return any(tile.contradicts(sums) for tile in held if tile is not None)

    def held(self, rect_l0: RectPx) -> TileSums | None:
        """A tile that is not complete yet; None if it is, or if nothing of it has arrived."""
        return self._tiles.get((rect_l0.x, rect_l0.y))

    def clear(self) -> None:
        """Release all memory."""
        self._tiles.clear()
        self.nbytes = 0

    def _touching(self, part: RectPx) -> Iterator[tuple[int, int]]:
        """Where tiles start whose blocks may have pixels in a rectangle."""
        side, size = self._reading.block_px, self._size_l0
        right, bottom = min(part.right + side, size.width), min(part.bottom + side, size.height)
        xs = self._across.starts(part.x - self._across.length_l0 - side, right)
        for y in self._down.starts(part.y - self._down.length_l0 - side, bottom):
            for x in xs:
                yield x, y
