"""The frame of a picture: how large the slide is drawn, where its pixels are on it, and how long a scale bar is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.records import SlideView
from melanoma_infer.result import SlideResult

PICTURE_PX = 1240
"""Longest side of the slide on a picture; with padding and key the picture stays near 1600 px."""
ZOOM_MAX = 10.0
"""A small slide is enlarged at most this much: beyond it there is nothing more to see."""
OVERHANG = 0.08
"""Tiles may extend beyond the slide by this share of its longest side on the picture, so that the slide stays large."""
BAR_BASE_PX = 320
"""The scale bar of a narrower slide is chosen as if the slide were this wide, so that its label fits."""


@dataclass(frozen=True)
class Frame:
    """A picture with the slide's upper left corner at (0, 0); one picture pixel is `px_l0` level-0 pixels.

    width, height: of the slide · beyond: columns and rows to the right and below, for tiles that extend beyond it.
    """

    width: int
    height: int
    px_l0: float
    beyond: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return self.height + self.beyond[1], self.width + self.beyond[0]

    def points(self, ring: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
        """L0 points (x, y) in picture pixels."""
        return [(x / self.px_l0, y / self.px_l0) for x, y in ring]


def frame_of(result: SlideResult, view: SlideView, longest_px: int = PICTURE_PX) -> Frame:
    """The frame in which the slide's longest side is `longest_px`, or less for a very small slide."""
    height, width = view.tissue.shape
    zoom = min(ZOOM_MAX, longest_px / max(height, width))
    px_l0 = view.px_l0 / zoom
    width, height = max(1, round(width * zoom)), max(1, round(height * zoom))
    tiles = result.tiles
    if not len(tiles):
        return Frame(width, height, px_l0)
    over_x = int((tiles.minx + tiles.width).max()) - result.slide.width_px
    over_y = int((tiles.miny + tiles.height).max()) - result.slide.height_px
    most = round(OVERHANG * max(width, height))
    right, below = (min(most, max(0, math.floor(over / px_l0))) for over in (over_x, over_y))
    return Frame(width, height, px_l0, (right, below))


def sampled(plane: NDArray[Any], cell_l0: tuple[float, float], frame: Frame, outside: Any) -> NDArray[Any]:
    """A plane of cells on the frame, nearest cell, so that every cell keeps its size; `outside` beyond its edge."""
    rows, columns = frame.shape
    y = ((np.arange(rows) + 0.5) * frame.px_l0 / cell_l0[1]).astype(np.intp)
    x = ((np.arange(columns) + 0.5) * frame.px_l0 / cell_l0[0]).astype(np.intp)
    picture = np.full((rows, columns), outside, plane.dtype)
    y, x = y[y < plane.shape[0]], x[x < plane.shape[1]]
    picture[: len(y), : len(x)] = plane.take(x, axis=1).take(y, axis=0)  # np.ix_ takes six times as long
    return picture


def round_mm(longest_mm: float) -> float:
    """The largest of 1, 2, 5 × 10ⁿ mm that is not longer than `longest_mm`."""
    power: float = 10.0 ** math.floor(math.log10(longest_mm) + 1e-9)
    return max(digit * power for digit in (1, 2, 5) if digit * power <= longest_mm * (1 + 1e-9))


def scale_bar(frame: Frame, um_per_px_l0: float, share: float = 0.28) -> tuple[float, int]:
    """A scale bar of at most this share of the slide's width: its length in mm and in picture pixels."""
    mm_per_px = um_per_px_l0 * frame.px_l0 / 1000
    mm = round_mm(max(frame.width, BAR_BASE_PX) * share * mm_per_px)
    return mm, round(mm / mm_per_px)
