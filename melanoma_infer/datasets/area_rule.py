"""Which label a tile gets from the areas drawn on its slide.

A label is present in a tile if its areas cover at least 5 % of the tile, or if at least half of one of its areas is in
the tile. The tile gets the highest label that reaches into it; if that one is not present, the tile is ambiguous.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.annotations import Area, Ring
from melanoma_infer.datasets.labels import rank
from melanoma_infer.geometry import RectPx

TILE_SHARE_MIN = 0.05
"""Share of a tile from which its areas give a label: 0.45 mm² of a tile of 3 mm."""
AREA_SHARE_MIN = 0.5
"""Share of an area from which a tile shows it, however small it is."""
SAMPLES = 256
"""Points a side at which a tile is looked at: a straight border is placed to 0.2 % of the tile."""


@dataclass(frozen=True)
class LabelledArea:
    """An area and the label that it gives; None for one that gives none."""

    area: Area
    label: str | None


@dataclass(frozen=True)
class Shown:
    """What a tile shows of the areas."""

    label: str | None
    """None: there is no label, or it is ambiguous."""
    ambiguous: bool
    """Whether the tile shows too little of a label to be called so, and too much to be called anything else."""
    touched: bool
    """Whether any area reaches into the tile, also one that gives no label."""


def shown_in(rect: RectPx, areas: Iterable[LabelledArea], card: ModelCard) -> Shown:
    """What a tile shows of these areas, all in level-0 pixels."""
    covered: dict[str, NDArray[np.bool_]] = {}
    present: set[str] = set()
    touched = False
    for each in areas:
        whole = _is_inside(each.area, rect)
        inside = samples_inside(each.area.rings, rect) if _is_near(each.area, rect) else np.zeros(1, np.bool_)
        if not (whole or inside.any()):
            continue
        touched = True
        if each.label is not None:
            covered[each.label] = covered.get(each.label, np.False_) | inside
            if whole or inside.mean() * rect.area >= AREA_SHARE_MIN * each.area.area:
                present.add(each.label)
    present |= {label for label, inside in covered.items() if inside.mean() >= TILE_SHARE_MIN}
    highest = max(covered, key=lambda label: rank(label, card), default=None)
    label = highest if highest in present else None
    return Shown(label, bool(covered) and label is None, touched)


def samples_inside(rings: Sequence[Ring], rect: RectPx, n: int = SAMPLES) -> NDArray[np.bool_]:
    """Which of n × n points of a rectangle, the middles of its cells, are inside the rings: bool (n, n).

    A point is inside if a line from it to the left crosses the rings an odd number of times, so holes are outside.
    """
    ys = rect.y + (np.arange(n) + 0.5) * (rect.height / n)
    crossings = np.zeros((n, n + 1), np.int64)
    for ring in rings:
        x0, y0 = ring.T
        x1, y1 = np.roll(ring, -1, axis=0).T
        # Of thousands of sides few are beside the rectangle: those above, below and to the right cross no line.
        beside = (np.maximum(y0, y1) >= ys[0]) & (np.minimum(y0, y1) <= ys[-1]) & (np.minimum(x0, x1) < rect.right)
        x0, y0, x1, y1 = x0[beside], y0[beside], x1[beside], y1[beside]
        sides, rows = np.nonzero((y0[:, None] <= ys) != (y1[:, None] <= ys))
        x = x0[sides] + (ys[rows] - y0[sides]) * ((x1 - x0)[sides] / (y1 - y0)[sides])
        # The first point to the right of the crossing.
        column = np.ceil((x - rect.x) / (rect.width / n) - 0.5)
        np.add.at(crossings, (rows, np.clip(column, 0, n).astype(np.int64)), 1)
    inside: NDArray[np.bool_] = crossings.cumsum(axis=1)[:, :n] % 2 == 1
    return inside


def _is_near(area: Area, rect: RectPx) -> bool:
    left, top, right, bottom = area.box
    return left < rect.right and right > rect.x and top < rect.bottom and bottom > rect.y


def _is_inside(area: Area, rect: RectPx) -> bool:
    """Whether all of it is in the rectangle; it may be smaller than the distance of two points."""
    left, top, right, bottom = area.box
    return left >= rect.x and right <= rect.right and top >= rect.y and bottom <= rect.bottom
