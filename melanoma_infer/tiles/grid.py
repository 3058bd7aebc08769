"""The grid: slide + tissue → the tiles to be scored.

Anchored at l0 (0, 0); tile i starts at round(i · stride / mpp) and is round(tile / mpp) wide. Tiles start inside the
slide and reach beyond its edge where they must. A tile is kept if at least 10 % of it, or 0.1 mm², is tissue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx, Scale, SizePx, l0_from_um
from melanoma_infer.records import Tile, Tissue
from melanoma_infer.settings import Settings

TISSUE_FRACTION_MIN = 0.10
TISSUE_MM2_MIN = 0.1
TILE_L0_MIN = 16
"""A narrower tile shows no cell; it is a mistyped unit."""
PLACES_MAX = 500_000
"""Places of the grid on the scanned area: 25 × 60 mm in tiles of 55 µm. More is a mistyped unit, too."""
TILES_MAX = 200_000
"""With tissue. At 100 tiles a second they take half an hour."""


@dataclass(frozen=True)
class Geometry:
    """The tiles' size and spacing in µm, and whether they are the model card's."""

    tile_um: float
    stride_um: float
    tile_px: int
    matches_card: bool

    @property
    def um_per_px(self) -> float:
        """Scale of the model's input."""
        return self.tile_um / self.tile_px

    @property
    def tile_mm2(self) -> float:
        """The area that one tile represents: with a finer stride, the part that the next tile does not cover again."""
        return (min(self.tile_um, self.stride_um) / 1000) ** 2


def tile_geometry(card: ModelCard, settings: Settings) -> Geometry:
    """The tiles that the settings ask for. A finer stride still matches the card; another tile size does not."""
    tile_um = settings.tile_um or card.tile_side_um
    stride_um = settings.stride_um or tile_um
    return Geometry(
        tile_um=tile_um,
        stride_um=stride_um,
        tile_px=card.tile_px,
        matches_card=abs(tile_um - card.tile_side_um) <= 1e-6 * card.tile_side_um and stride_um <= tile_um,
    )


def require_sensible_tiles(geometry: Geometry, scanned: SizePx, scale: Scale) -> None:
    """Require that tiles chosen by the user are wider than a few pixels, and not too many to score.

    Raises:
        UsageError: they are not.
    """
    width, height = (l0_from_um(geometry.tile_um, um) for um in (scale.x_um, scale.y_um))
    if min(width, height) < TILE_L0_MIN:
        raise UsageError(
            f"--tile-um {geometry.tile_um:g} is too small for this slide: a tile would have {width} × {height} of its "
            f"pixels, and at least {TILE_L0_MIN} × {TILE_L0_MIN} are needed. "
            f"Give the side in µm, {TILE_L0_MIN * scale.mean_um:.3g} or more."
        )
    across, down = (
        min(side, math.ceil(side * um / geometry.stride_um))
        for side, um in ((scanned.width, scale.x_um), (scanned.height, scale.y_um))
    )
    _require_at_most(across * down, PLACES_MAX, geometry, "places for tiles on this slide")


def require_few_enough(tiles: int, geometry: Geometry) -> None:
    """Require that tiles chosen by the user are not too many to score.

    Raises:
        UsageError: there are more than TILES_MAX.
    """
    _require_at_most(tiles, TILES_MAX, geometry, "tiles with tissue")


def _require_at_most(count: int, limit: int, geometry: Geometry, what: str) -> None:
    if count > limit:
        raise UsageError(
            f"--tile-um {geometry.tile_um:g} every --stride-um {geometry.stride_um:g} makes {count:,} {what}; the "
            f"limit is {limit:,}. Choose larger ones."
        )


@dataclass(frozen=True)
class GridAxis:
    """The tiles along one side: tile i starts at round(i · stride), or at every pixel if the stride is below one."""

    stride_um: float
    um_per_px: float
    length_l0: int
    """Of a tile."""

    @classmethod
    def both(cls, geometry: Geometry, scale: Scale) -> tuple[GridAxis, GridAxis]:
        """The axes along x and y."""
        across, down = (
            cls(geometry.stride_um, um, max(1, l0_from_um(geometry.tile_um, um))) for um in (scale.x_um, scale.y_um)
        )
        return across, down

    def starts(self, low_l0: int, high_l0: int) -> list[int]:
        """Where tiles start that start in low ≤ x < high."""
        low_l0 = max(0, low_l0)
        if self.stride_um <= self.um_per_px:
            return list(range(low_l0, high_l0))
        number = max(0, math.floor(low_l0 * self.um_per_px / self.stride_um) - 1)
        starts: list[int] = []
        while (start := l0_from_um(number * self.stride_um, self.um_per_px)) < high_l0:
            if start >= low_l0:
                starts.append(start)
            number += 1
        return starts


def place_tiles(size_l0: SizePx, scale: Scale, tissue: Tissue, geometry: Geometry) -> list[Tile]:
    """The tiles with enough tissue, sorted by (miny, minx)."""
    area = TissueArea(tissue.mask, tissue.px_l0)
    across, down = GridAxis.both(geometry, scale)
    width, height = across.length_l0, down.length_l0
    xs = np.array(across.starts(0, size_l0.width))
    kept: list[Tile] = []
    for y in down.starts(0, size_l0.height):
        tissue_px = area.in_row(y, y + height, xs, xs + width)
        enough = (tissue.source == "all") | enough_tissue(tissue_px, width * height, scale)
        for column in np.flatnonzero(enough & (tissue_px > 0)):
            rect = RectPx(int(xs[column]), y, width, height)
            padded = 1 - rect.within(size_l0).area / rect.area
            kept.append(Tile(len(kept), rect, float(tissue_px[column]) / rect.area, padded))
    return kept


def enough_tissue(tissue_px: NDArray[np.float64], tile_px: int, scale: Scale) -> NDArray[np.bool_]:
    """Whether tiles hold enough tissue to be scored; both areas in level-0 pixels."""
    return (tissue_px >= TISSUE_FRACTION_MIN * tile_px) | (tissue_px * scale.pixel_mm2 >= TISSUE_MM2_MIN)


class TissueArea:
    """The tissue inside level-0 rectangles, exact to fractions of mask pixels.

    Args:
        mask: tissue, bool (h, w).
        px_l0: side of a mask pixel in level-0 pixels.
    """

    def __init__(self, mask: NDArray[np.bool_], px_l0: float) -> None:
        height, width = mask.shape
        self._sums: NDArray[np.float64] = np.zeros((height + 1, width + 1))
        self._sums[1:, 1:] = mask.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
        self._px_l0 = px_l0

    def in_row(
        self, top_l0: float, bottom_l0: float, lefts_l0: NDArray[Any], rights_l0: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Tissue (n,) inside rectangles of the same top and bottom, in level-0 pixels."""
        above, below = _between(self._sums, np.array([top_l0, bottom_l0]) / self._px_l0)
        upto = (below - above)[:, None]
        left, right = (_between(upto, edges / self._px_l0)[:, 0] for edges in (lefts_l0, rights_l0))
        return np.maximum((right - left) * self._px_l0**2, 0.0)

    def on_grid(self, xs_l0: NDArray[np.float64], ys_l0: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tissue (len(ys) − 1, len(xs) − 1) between neighbouring lines of a grid, in level-0 pixels."""
        rows = _between(self._sums, ys_l0 / self._px_l0)
        corners = _between(rows.T, xs_l0 / self._px_l0).T
        inside: NDArray[np.float64] = np.diff(np.diff(corners, axis=0), axis=1) * self._px_l0**2
        return np.maximum(inside, 0.0)


def _between(values: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of sums, interpolated at fractional places: exact, because each pixel is tissue throughout or not at all."""
    places = np.clip(places, 0.0, len(values) - 1.0)
    low = np.minimum(places.astype(int), len(values) - 2)
    part = (places - low)[:, None]
    rows: NDArray[np.float64] = values[low] * (1 - part) + values[low + 1] * part
    return rows
