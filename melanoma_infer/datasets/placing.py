"""Where tiles are cut: over annotated areas, on the lines of thicknesses, and in tissue where nothing is annotated."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.annotations import BreslowLine
from melanoma_infer.datasets.area_rule import LabelledArea, shown_in
from melanoma_infer.datasets.labels import no_lesion
from melanoma_infer.geometry import RectPx, Scale, l0_from_um
from melanoma_infer.records import Tile
from melanoma_infer.tiles.grid import TissueArea, enough_tissue
from melanoma_infer.tiles.plan import SlidePlan

AMBIGUOUS, LITTLE_TISSUE = "ambiguous", "with too little tissue"
"""Why a tile over an area is left out."""
SAME_PLACE = 0.5
"""Two tiles that have more than this share in common show the same; with one label, only one of them is cut."""


@dataclass
class Placed:
    """The tiles of a slide with their labels, and how many places were left out for which reason."""

    labels: list[tuple[Tile, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def place_over(areas: Sequence[LabelledArea], lines: Sequence[BreslowLine], plan: SlidePlan, card: ModelCard) -> Placed:
    """Tiles centred on the lines of thicknesses, and a centred grid of them over each area that gives a label.

    Every area gets the tile around its middle at least. Ambiguous tiles are left out, and tiles with so little
    tissue that they would not be scored.
    """
    placed, taken, tissue = Placed(), _Taken(), TissueArea(plan.tissue)
    for rect in _places(areas, lines, plan):
        shown = shown_in(rect, areas, card)
        if shown.ambiguous:
            placed.left_out[AMBIGUOUS] += 1
        if shown.label is None or taken.already(rect, shown.label):
            continue
        tissue_px = tissue.in_row(rect.y, rect.bottom, np.array([rect.x]), np.array([rect.right]))
        if not enough_tissue(tissue_px, rect.area, plan.scale.scale).all():
            placed.left_out[LITTLE_TISSUE] += 1
            continue
        outside = 1 - rect.within(plan.facts.size_l0).area / rect.area
        tile = Tile(len(placed.labels), rect, float(tissue_px[0]) / rect.area, outside)
        placed.labels.append((tile, shown.label))
        taken.add(rect, shown.label)
    return placed


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


def _places(areas: Sequence[LabelledArea], lines: Sequence[BreslowLine], plan: SlidePlan) -> Iterator[RectPx]:
    """Rectangles of the tiles' size, those of the lines first, then those of the areas from the largest on."""
    scale, side_um = plan.scale.scale, plan.geometry.tile_um
    for line in lines:
        yield from _grid(*line.ends.min(axis=0), *line.ends.max(axis=0), scale=scale, side_um=side_um)
    for each in sorted(areas, key=lambda each: (-each.area.area, each.area.box)):
        if each.label is not None:
            yield from _grid(*each.area.box, scale=scale, side_um=side_um)


def _grid(left: float, top: float, right: float, bottom: float, *, scale: Scale, side_um: float) -> Iterator[RectPx]:
    """Tiles that touch, as few as cover a box, with the middle of the box in their middle."""
    xs, ys = _starts(left, right, scale.x_um, side_um), _starts(top, bottom, scale.y_um, side_um)
    width, height = (max(1, l0_from_um(side_um, um)) for um in (scale.x_um, scale.y_um))
    yield from (RectPx(x, y, width, height) for y in ys for x in xs)


def _starts(low: float, high: float, um_per_px: float, side_um: float) -> list[int]:
    count = max(1, math.ceil((high - low) * um_per_px / side_um - 1e-9))
    first_um = (low + high) / 2 * um_per_px - count * side_um / 2
    return [l0_from_um(first_um + i * side_um, um_per_px) for i in range(count)]


class _Taken:
    """The rectangles that are cut, by label and place: only neighbours are compared."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, int, int], list[RectPx]] = {}

    def already(self, rect: RectPx, label: str) -> bool:
        """Whether another rectangle of that label shows the same."""
        column, row = rect.x // rect.width, rect.y // rect.height
        around = ((label, column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1))
        return any(_common(rect, other) > SAME_PLACE for place in around for other in self._at.get(place, ()))

    def add(self, rect: RectPx, label: str) -> None:
        self._at.setdefault((label, rect.x // rect.width, rect.y // rect.height), []).append(rect)


def _common(a: RectPx, b: RectPx) -> float:
    """The share of a rectangle that another of its size covers."""
    width = min(a.right, b.right) - max(a.x, b.x)
    height = min(a.bottom, b.bottom) - max(a.y, b.y)
    return max(0, width) * max(0, height) / a.area
