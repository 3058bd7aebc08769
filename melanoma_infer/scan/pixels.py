"""The pixels of a scan in progress: what has arrived, the tissue plane, and the tiles that are complete."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import SlideUnreadableError, UsageError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.scan.blocks import pixels_of, whole_blocks
from melanoma_infer.scan.coverage import Coverage
from melanoma_infer.scan.plane_sums import UNBOUNDED, PlaneSums
from melanoma_infer.scan.tile_sums import ArrivingTiles, TileSums
from melanoma_infer.slides.slide import opaque
from melanoma_infer.tiles.grid import Geometry
from melanoma_infer.tiles.plane import Plane
from melanoma_infer.tiles.read_plan import ReadPlan
from melanoma_infer.tiles.tissue_bound import TissueBound

BAND_ROWS = 256
"""A frame is taken in bands of this many rows: a tile's memory is free again before the next band needs its own."""
MEBIBYTE = 1 << 20


class ScanPixels:
    """What is known of a scan in progress. It belongs to one thread at a time.

    Args:
        scale: µm per level-0 pixel.
        size_l0: of the whole scan; None if it is not known yet.
        geometry: of the tiles.
        reading: how their pixels are made.
        finds_tissue: False: every tile may be scored, as with a mask that the user brings.
        background: colour under transparent pixels.
        first_wins: of pixels that arrive twice, the first count; else they must be the same.
    """

    def __init__(
        self,
        scale: Scale,
        size_l0: SizePx | None,
        geometry: Geometry,
        reading: ReadPlan,
        *,
        finds_tissue: bool,
        background: tuple[int, int, int],
        first_wins: bool,
    ) -> None:
        self._size_l0 = size_l0
        self._finds_tissue, self._background, self._first_wins = finds_tissue, background, first_wins
        self._coverage, self._plane = Coverage(), PlaneSums(scale, size_l0)
        self._tiles = ArrivingTiles(geometry, scale, reading, size_l0 or UNBOUNDED)
        self._bound = TissueBound(self._plane.block_px, scale)
        self._undecided: dict[RectPx, TileSums] = {}
        self._extent = SizePx(0, 0)
        self._scale = scale
        self.tile_nbytes = self._tiles.tile_nbytes
        """The memory of a tile until it is resized."""
        self.row_nbytes = self._tiles.row_nbytes if size_l0 else 0
        """The memory of one row of tiles; 0 if the scan's size is not known."""

    @property
    def size_l0(self) -> SizePx:
        """The size that was given, else what has arrived."""
        return self._size_l0 or self._extent

    @property
    def scanned_px(self) -> int:
        """Pixels that have arrived."""
        return self._coverage.area

    @property
    def nbytes(self) -> int:
        """Memory of the plane and of all tiles that wait for pixels or for a decision."""
        undecided = list(self._undecided.values())  # a copy: another thread may be pushing
        return self._plane.nbytes + self._tiles.nbytes + sum(tile.nbytes for tile in undecided)

    def require_inside(self, frame: RectPx) -> None:
        """Require that a frame is inside the scan.

        Raises:
            UsageError: it is not.
        """
        if frame.x < 0 or frame.y < 0 or frame.within(self._size_l0 or UNBOUNDED) != frame:
            size = self._size_l0
            place = f"{size.width} × {size.height} px" if size else "from (0, 0) on"
            raise UsageError(
                f"A frame of {frame.width} × {frame.height} px at ({frame.x}, {frame.y}) reaches beyond the scan, "
                f"which is {place}. Give its place in level-0 pixels, and the size of the whole scan."
            )

    def add(self, frame: RectPx, pixels: NDArray[np.uint8]) -> list[TileSums]:
        """Add a band of a frame; the tiles that are complete now and may hold tissue.

        Args:
            frame: where it is.
            pixels: uint8 (h, w, 3), or (h, w, 4) with alpha.

        Raises:
            SlideUnreadableError: pixels that had arrived before are others now.
            UsageError: a scan of unknown size is too large.
        """
        region = opaque(pixels, self._background)
        alpha = pixels[..., 3] if region.transparent_px else None
        new, known = self._coverage.add(frame)
        for part in known:
            self._require_same(part, pixels_of(region.pixels, frame, part))
        complete: list[TileSums] = []
        for part in new:
            part_pixels = pixels_of(region.pixels, frame, part)
            self._plane.add(part, part_pixels)
            complete += self._tiles.add(part, part_pixels, None if alpha is None else pixels_of(alpha, frame, part))
        self._extent = SizePx(max(self._extent.width, frame.right), max(self._extent.height, frame.bottom))
        return [*self._decided(), *(tile for tile in complete if self._is_wanted(tile))]

    def take(self, rect_l0: RectPx) -> TileSums | None:
        """A tile of the plan that is complete in a scan that has ended, but was not wanted until now; else None."""
        tile = self._undecided.pop(rect_l0, None) or self._tiles.held(rect_l0)
        return tile if tile is not None and tile.is_complete(self.size_l0) else None

    def read_plane(self) -> Plane:
        """The tissue plane as if the scan had ended; what has not arrived is unread."""
        return self._plane.plane(self.size_l0)

    def digest(self) -> str:
        """SHA-256 of what has arrived: the same in whatever parts and order."""
        return self._plane.digest(self.size_l0, self._scale)

    def clear(self) -> None:
        """Release the tiles' memory."""
        self._tiles.clear()
        self._undecided.clear()

    def _decided(self) -> Iterator[TileSums]:
        """The undecided tiles around which everything is known now, and that may hold tissue."""
        for rect, tile in list(self._undecided.items()):
            if (wanted := self._may_hold_tissue(tile)) is not None:
                del self._undecided[rect]
                if wanted:
                    yield tile

    def _is_wanted(self, tile: TileSums) -> bool:
        """Whether a complete tile may hold tissue; undecided, it is kept for later."""
        wanted = True if not self._finds_tissue else self._may_hold_tissue(tile)
        if wanted is None:
            self._undecided[tile.rect_l0] = tile
        return bool(wanted)

    def _may_hold_tissue(self, tile: TileSums) -> bool | None:
        """Whether a tile may hold tissue; None: it depends on pixels that have not arrived."""
        size_l0 = self._size_l0 or UNBOUNDED
        plane = self._plane.size(size_l0)
        rgb, known = self._plane.window(self._bound.window(tile.rect_l0, plane), size_l0)
        if self._bound.may_hold_tissue(tile.rect_l0, plane, rgb, known):
            return True
        return False if known.all() else None

    def _require_same(self, part: RectPx, pixels: NDArray[np.uint8]) -> None:
        if self._first_wins:
            return
        for holder, side in ((self._tiles, self._tiles.block_px), (self._plane, self._plane.block_px)):
            whole = whole_blocks(part, side)
            if whole.area and holder.contradicts(whole, pixels_of(pixels, part, whole)):
                raise SlideUnreadableError(
                    f"The scan contradicts itself: {whole.width} × {whole.height} px at ({whole.x}, {whole.y}) arrived "
                    'twice and differ. Send each place with the same pixels, or open the session with overlap="first": '
                    "then those that arrive first count."
                )
