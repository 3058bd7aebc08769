"""Where a tissue section is on the slide: rotated by any angle, and bent along an arc.

Strip coordinates in µm: s along the skin, d down from its general surface, which is the arc d = 0. Lines of constant s
are perpendicular to that surface. Only + − × ÷ √ take part: angles are given by the tangent of their half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A section's place: the middle of its surface (x, y), the direction along the skin, its length, and its bend.

    `cos` and `sin` belong to the direction of growing s on the slide. `radius_um` is the arc's; `bulge` is 1 if the
    ends hang down (the centre of the arc is below the surface), −1 if they rise.
    """

    x_um: float
    y_um: float
    cos: float
    sin: float
    length_um: float
    radius_um: float
    bulge: int

    @property
    def centre_um(self) -> tuple[float, float]:
        """The centre of the arc on the slide."""
        away = self.bulge * self.radius_um
        return self.x_um - self.sin * away, self.y_um + self.cos * away

    def strip(self, x_um: Places, y_um: Places) -> tuple[Places, Places]:
        """Strip coordinates s, d of places on the slide."""
        x, y = x_um - self.x_um, y_um - self.y_um
        along, down = self.cos * x + self.sin * y, self.cos * y - self.sin * x
        radius = self.radius_um
        to_centre = radius - self.bulge * down
        distance = np.sqrt(along * along + to_centre * to_centre)
        d = self.bulge * (radius - distance)
        # 2 · radius · tan(θ/2): the arc's length to 1 % up to 20°, without an arc tangent.
        s = self.length_um / 2 + (2 * radius) * along / (distance + to_centre)
        return s, d

    def slide(self, s_um: Places, d_um: Places) -> tuple[Places, Places]:
        """Places on the slide of strip coordinates."""
        t = (s_um - self.length_um / 2) / (2 * self.radius_um)
        sin, cos = 2 * t / (1 + t * t), (1 - t * t) / (1 + t * t)
        distance = self.radius_um - self.bulge * d_um
        along, down = distance * sin, self.bulge * (self.radius_um - distance * cos)
        return self.x_um + self.cos * along - self.sin * down, self.y_um + self.sin * along + self.cos * down

    def stretch(self, s_um: Places) -> Places:
        """Arc length per s at d = 0."""
        t = (s_um - self.length_um / 2) / (2 * self.radius_um)
        stretch: Places = 1 / (1 + t * t)
        return stretch


def direction(degrees: float) -> tuple[float, float]:
    """Cosine and sine, by Taylor's series in a fixed order: the same bits on every machine."""
    turns = degrees / 90
    quarter = round(turns)
    x = (turns - quarter) * 1.5707963267948966
    cos = sin = 0.0
    term = 1.0
    for power in range(0, 22, 2):
        cos += term
        term *= x / (power + 1)
        sin += term
        term *= -x / (power + 2)
    return [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)][quarter % 4]
