"""Planes and units.

Three planes: ``l0`` (pixels of level 0, in which every output gives its coordinates), ``level`` (pixels of the pyramid
level that is read) and ``tile`` (pixels of the model's input). Conversions are named after their result and their
argument: ``l0_from_um``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PLAUSIBLE_UM_PER_PX = (0.1, 1.1)
"""Level 0 of a slide scanner: 0.11 (60×) to 1.0 (10×) µm/px. Outside, a unit or a tag is wrong (0.25 has been
read as 27.2)."""
ANISOTROPY_MAX = 0.02
"""Scanners' x and y scales differ by well under 1 %; swapped or mixed-up tags differ by more."""


@dataclass(frozen=True)
class SizePx:
    """A size in the pixels of one plane."""

    width: int
    height: int


@dataclass(frozen=True)
class RectPx:
    """A rectangle in the pixels of one plane; the far edges are exclusive."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The first column beyond it."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The first row beyond it."""
        return self.y + self.height

    @property
    def area(self) -> int:
        """Its pixels."""
        return self.width * self.height

    def overlap(self, other: RectPx) -> RectPx:
        """The part that both have; its width or height is 0 if there is none."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return RectPx(x, y, max(0, min(self.right, other.right) - x), max(0, min(self.bottom, other.bottom) - y))

    def within(self, size: SizePx) -> RectPx:
        """The part of it inside a plane of this size; its width or height is 0 if there is none."""
        x, y = min(max(self.x, 0), size.width), min(max(self.y, 0), size.height)
        right, bottom = min(max(self.right, x), size.width), min(max(self.bottom, y), size.height)
        return RectPx(x, y, right - x, bottom - y)


@dataclass(frozen=True)
class Scale:
    """µm per level-0 pixel, x and y kept apart."""

    x_um: float
    y_um: float

    @property
    def mean_um(self) -> float:
        """The mean of x and y: for choosing a level, never for a length."""
        return (self.x_um + self.y_um) / 2

    @property
    def pixel_mm2(self) -> float:
        """Area of one level-0 pixel in mm²."""
        return self.x_um * self.y_um / 1e6

    @property
    def implausible(self) -> str | None:
        """Why this cannot be a slide's scale; None if it can."""
        low, high = PLAUSIBLE_UM_PER_PX
        if not all(math.isfinite(um) and low <= um <= high for um in (self.x_um, self.y_um)):
            return f"{self.x_um:g} × {self.y_um:g} µm/px is outside {low}–{high} µm/px"
        if abs(self.x_um - self.y_um) > ANISOTROPY_MAX * min(self.x_um, self.y_um):
            return f"{self.x_um:g} × {self.y_um:g} µm/px: x and y are more than {ANISOTROPY_MAX:.0%} apart"
        return None


def l0_from_um(um: float, um_per_px: float) -> int:
    """The nearest level-0 pixel to a distance from the slide's edge."""
    return round(um / um_per_px)
