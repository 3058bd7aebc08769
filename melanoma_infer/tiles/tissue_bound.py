"""What can be tissue, whatever the rest of the slide is: from a part of the plane, while a scan still goes on.

`find_tissue` needs the whole slide: Otsu's threshold does. But that threshold is never below SATURATION_THRESHOLD[0],
and closing gaps and filling holes are monotone: more saturated pixels never make less tissue. So the tissue of the
lowest threshold contains the slide's, and a tile without enough of it will not be scored. A hole counts as filled here
where the part of it that is seen is small enough; the whole can only be larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.tiles.colour import saturation_of
from melanoma_infer.tiles.grid import TissueArea, enough_tissue
from melanoma_infer.tiles.tissue import HOLE_MM2, SATURATION_THRESHOLD, closing_steps, without_gaps

ROUNDING = 1 + 1e-9
"""The same area, summed in another order, differs in its last bits."""


@dataclass(frozen=True)
class TissueBound:
    """Decides which tiles can be left out before the whole plane is known.

    px_l0: side of the plane's pixels in level-0 pixels · scale: µm per level-0 pixel.
    """

    px_l0: int
    scale: Scale

    def window(self, tile_l0: RectPx, plane: SizePx) -> RectPx:
        """The pixels of the plane on which it depends whether a tile can be left out."""
        return _grown(self._seen(tile_l0, plane), 2 * self._steps, plane)

    def may_hold_tissue(self, tile_l0: RectPx, plane: SizePx, rgb: NDArray[np.uint8], known: NDArray[np.bool_]) -> bool:
        """Whether the known pixels can give a tile enough tissue to be scored.

        Args:
            tile_l0: the tile.
            plane: size of the whole plane.
            rgb: the plane in the tile's window, uint8 (h, w, 3).
            known: bool (h, w); the others count as background.
        """
        window, seen = self.window(tile_l0, plane), self._seen(tile_l0, plane)
        stained = (saturation_of(rgb) >= SATURATION_THRESHOLD[0]) & known
        if not stained.any() and known.all():
            return False  # the window is large enough not to be a hole
        left, top = seen.x - window.x, seen.y - window.y
        tissue = without_gaps(stained, self._steps)[top : top + seen.height, left : left + seen.width]
        gaps, _ = ndimage.label(~tissue)
        small = np.bincount(gaps.ravel()) < self._hole_px
        small[0] = True
        area = TissueArea(small[gaps], self.px_l0)
        y, x = tile_l0.y - seen.y * self.px_l0, tile_l0.x - seen.x * self.px_l0
        inside = area.in_row(y, y + tile_l0.height, np.array([x]), np.array([x + tile_l0.width]))
        return bool(enough_tissue(inside * ROUNDING, tile_l0.area, self.scale)[0])

    def _seen(self, tile_l0: RectPx, plane: SizePx) -> RectPx:
        """The tile on the plane with so much around it that background is too large to be a hole."""
        x, y = tile_l0.x // self.px_l0, tile_l0.y // self.px_l0
        right, bottom = -(-tile_l0.right // self.px_l0), -(-tile_l0.bottom // self.px_l0)
        tile = _grown(RectPx(x, y, right - x, bottom - y), 0, plane)
        side = math.ceil(math.sqrt(self._hole_px))
        return _grown(tile, max(0, side - min(tile.width, tile.height)), plane)

    @property
    def _hole_px(self) -> float:
        return HOLE_MM2 / (self.px_l0**2 * self.scale.pixel_mm2)

    @property
    def _steps(self) -> int:
        return closing_steps(self.px_l0 * max(self.scale.x_um, self.scale.y_um))


def _grown(rect: RectPx, by: int, plane: SizePx) -> RectPx:
    """A rectangle with a margin, inside the plane."""
    return RectPx(rect.x - by, rect.y - by, rect.width + 2 * by, rect.height + 2 * by).within(plane)
