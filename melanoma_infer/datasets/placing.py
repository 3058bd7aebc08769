"""Where tiles are cut: over annotated areas, on the lines of thicknesses, and in tissue where nothing is annotated."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.annotations import BreslowLine
from melanoma_infer.datasets.area_rule import LabelledArea, shown_in
from melanoma_infer.datasets.labels import is_malignant, no_lesion
from melanoma_infer.geometry import RectPx, Scale, l0_from_um
from melanoma_infer.records import Tile
from melanoma_infer.tiles.grid import TissueArea, enough_tissue
from melanoma_infer.tiles.plan import SlidePlan

AMBIGUOUS, LITTLE_TISSUE = "ambiguous", "with too little tissue"
"""Why a tile over an area is left out."""
NOT_MEASURED = "thickness in no malignant tile"
"""A line that is longer than a tile, or away from what is malignant."""
SAME_PLACE = 0.5
"""Two tiles that have more than this share in common show the same; with one label, only one of them is cut."""


@dataclass(frozen=True)
class Placed:
    """The tiles of a slide with their labels, and how many places were left out for which reason."""

    tiles: tuple[tuple[Tile, str], ...]
    left_out: Counter[str]


def place_over(areas: Sequence[LabelledArea], lines: Sequence[BreslowLine], plan: SlidePlan, card: ModelCard) -> Placed:
    """A centred grid of tiles over each area that gives a label, and a tile on each line that none of them holds.

    Ambiguous tiles are left out, and tiles with so little tissue that they would not be scored.
    """
    placing = _Placing(areas, plan, card)
    scale, side_um = plan.scale.scale, plan.geometry.tile_um
    for each in sorted(areas, key=lambda each: (-each.area.area, each.area.box)):
        for rect in _grid(each.area.box, scale, side_um) if each.label is not None else ():
            if (label := placing.label(rect)) is not None and not placing.is_taken(rect, label):
                placing.add(rect, label)
    for line in lines:
        if not placing.holds(line):
            for rect in _grid(line.box, scale, side_um):
                if (label := placing.label(rect)) is not None and holds(rect, line):
                    placing.add(rect, label)
            placing.left_out[NOT_MEASURED] += not placing.holds(line)
    return Placed(tuple(placing.tiles), +placing.left_out)


class _Placing:
    """The tiles that are placed so far; of those that are there, only neighbours are compared with a new one."""

    def __init__(self, areas: Sequence[LabelledArea], plan: SlidePlan, card: ModelCard) -> None:
        self._areas, self._plan, self._card = areas, plan, card
        self._tissue = TissueArea(plan.tissue.mask, plan.tissue.px_l0)
        self._at: dict[tuple[str, int, int], list[RectPx]] = {}
        self.tiles: list[tuple[Tile, str]] = []
        self.left_out: Counter[str] = Counter()

    def label(self, rect: RectPx) -> str | None:
        """The label of a place."""
        shown = shown_in(rect, self._areas, self._card)
        self.left_out[AMBIGUOUS] += shown.ambiguous
        return shown.label

    def is_taken(self, rect: RectPx, label: str) -> bool:
        """Whether another tile of that label shows the same."""
        column, row = rect.x // rect.width, rect.y // rect.height
        around = ((label, column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1))
        return any(_common(rect, other) > SAME_PLACE for place in around for other in self._at.get(place, ()))

    def add(self, rect: RectPx, label: str) -> None:
        """Place a tile, if it has enough tissue."""
        tissue_px = self._tissue.in_row(rect.y, rect.bottom, np.array([rect.x]), np.array([rect.right]))
        if not enough_tissue(tissue_px, rect.area, self._plan.scale.scale).all():
            self.left_out[LITTLE_TISSUE] += 1
            return
        outside = 1 - rect.within(self._plan.facts.size_l0).area / rect.area
        self.tiles.append((Tile(len(self.tiles), rect, float(tissue_px[0]) / rect.area, outside), label))
        self._at.setdefault((label, rect.x // rect.width, rect.y // rect.height), []).append(rect)

    def holds(self, line: BreslowLine) -> bool:
        """Whether a malignant tile holds both ends of a line."""
        return any(is_malignant(label, self._card) and holds(tile.rect_l0, line) for tile, label in self.tiles)


def holds(rect: RectPx, line: BreslowLine) -> bool:
    """Whether both ends of a line are in a tile."""
    left, top, right, bottom = line.box
    return left >= rect.x and right <= rect.right and top >= rect.y and bottom <= rect.bottom


def background(
    areas: Sequence[LabelledArea], plan: SlidePlan, card: ModelCard, *, count: int, seed: str
) -> list[tuple[Tile, str]]:
    """At most `count` tiles of the plan's grid into which no area reaches, labelled as without lesion.

    Which ones is decided by a hash of the seed and the place, so that it depends on nothing else.
    """
    by_hash = sorted(plan.tiles, key=lambda tile: hashed(f"{seed}/{tile.rect_l0.x}/{tile.rect_l0.y}"))
    chosen: list[tuple[Tile, str]] = []
    for tile in by_hash:
        if len(chosen) == count:
            break
        if not shown_in(tile.rect_l0, areas, card).touched:
            chosen.append((tile, no_lesion(card)))
    return sorted(chosen, key=lambda each: each[0].index)


def hashed(text: str) -> bytes:
    """A number that looks random and is the same for the same text, as bytes that can be compared."""
    return hashlib.sha256(text.encode()).digest()


def _grid(box: tuple[float, float, float, float], scale: Scale, side_um: float) -> Iterator[RectPx]:
    """Tiles that touch, as few as cover a box, with the middle of the box in their middle."""
    left, top, right, bottom = box
    xs, ys = _starts(left, right, scale.x_um, side_um), _starts(top, bottom, scale.y_um, side_um)
    width, height = (max(1, l0_from_um(side_um, um)) for um in (scale.x_um, scale.y_um))
    yield from (RectPx(x, y, width, height) for y in ys for x in xs)


def _starts(low: float, high: float, um_per_px: float, side_um: float) -> list[int]:
    count = max(1, math.ceil((high - low) * um_per_px / side_um - 1e-9))
    first_um = (low + high) / 2 * um_per_px - count * side_um / 2
    return [l0_from_um(first_um + i * side_um, um_per_px) for i in range(count)]


def _common(a: RectPx, b: RectPx) -> float:
    """The share of a rectangle that another of its size covers."""
    width = min(a.right, b.right) - max(a.x, b.x)
    height = min(a.bottom, b.bottom) - max(a.y, b.y)
    return max(0, width) * max(0, height) / a.area
