"""Annotated slides → tiles with labels, with the pixels that `score` would see at the same places."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.annotations import Annotations, BreslowLine, Ring
from melanoma_infer.datasets.area_rule import LabelledArea
from melanoma_infer.datasets.checks import outcome_problem
from melanoma_infer.datasets.labels import LabelledSlide, LabelledTile, Split, is_malignant, no_lesion, rank
from melanoma_infer.datasets.placing import background, place_over
from melanoma_infer.errors import DatasetError
from melanoma_infer.geometry import RectPx, Scale, SizePx, l0_from_um
from melanoma_infer.records import Tile
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.runtime.privacy import safe_name
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.scale import known_scale
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tiles

AGREES_MM, AGREES_SHARE = 0.2, 0.15
"""Two measurements of one thickness agree to within 0.2 mm or 15 %: pathologists do."""
UNREADABLE = "unreadable"
"""Why a tile is left out: the slide is damaged there."""


@dataclass(frozen=True)
class SlideSource:
    """A slide, and what is said about it and its patient."""

    path: Path
    name: str
    case_id: str
    settings: Settings
    values: Mapping[str, str]
    """The patient's, by field of the card, as written in the manifest."""
    breslow_mm: float | None = None
    outcome: bool | None = None
    split: Split | None = None

    @property
    def tile_folder(self) -> str:
        """Where its tiles are in the data set."""
        return f"tiles/{safe_name(self.name)}"


@dataclass(frozen=True)
class DrawnSlide:
    """A slide and what was drawn on it, in level-0 pixels."""

    source: SlideSource
    areas: tuple[LabelledArea, ...]
    lines: tuple[BreslowLine, ...]
    lines_mm: tuple[float, ...]
    """Lengths of the lines."""
    is_phantom: bool

    @property
    def breslow_mm(self) -> float | None:
        """The longest line, else what the manifest says."""
        return max(self.lines_mm, default=self.source.breslow_mm)

    @property
    def doubt(self) -> str | None:
        """How far the lines are from the manifest's thickness, if they are not what was reported."""
        reported, drawn = self.source.breslow_mm, self.breslow_mm
        if reported is None or drawn is None or abs(drawn - reported) <= max(AGREES_MM, AGREES_SHARE * reported):
            return None
        return f"the longest line named Breslow is {drawn:.2f} mm long, and the manifest says {reported:g} mm"

    def label(self, card: ModelCard) -> str:
        """The highest label of its areas."""
        labels = {each.label for each in self.areas if each.label is not None} | {no_lesion(card)}
        return max(labels, key=lambda label: rank(label, card))

    def labelled(self, card: ModelCard) -> LabelledSlide:
        """Its row of slides.csv."""
        own = self.source
        return LabelledSlide(own.name, str(own.path.absolute()), own.case_id, self.label(card), own.split)


@dataclass(frozen=True)
class CutSlide:
    """The tiles of one slide."""

    tiles: tuple[LabelledTile, ...]
    size_l0: SizePx
    """Of a tile."""
    drawn: DrawnSlide
    left_out: Mapping[str, int]
    """The number of places that gave no tile, by reason."""

    def outlines(self, tile: LabelledTile, tile_px: int) -> tuple[Ring, ...]:
        """The lines, and the borders and holes of all areas that give a label, in the tile's pixels."""
        assert tile.x_l0 is not None  # it was cut from a slide
        assert tile.y_l0 is not None
        corner, side = np.array([tile.x_l0, tile.y_l0]), np.array([self.size_l0.width, self.size_l0.height])
        rings = [ring for each in self.drawn.areas if each.label for ring in each.area.rings]
        rings += [line.ends for line in self.drawn.lines]
        return tuple((ring - corner) / side * tile_px for ring in rings)


def drawn_slide(
    source: SlideSource, annotations: Annotations, labels: Mapping[str, str | None], card: ModelCard
) -> DrawnSlide:
    """The slide with its annotations in level-0 pixels.

    Args:
        source: the slide.
        annotations: in QuPath's frame.
        labels: by the name of an annotation's class; None for names that give no label.
        card: of the model.

    Raises:
        MminferError: the slide cannot be opened or has no known scale, an area is not on it, or its label contradicts
            the outcome.
    """
    with open_slide(source.path) as slide:
        facts = slide.facts
        scale = known_scale(facts, source.settings.mpp_um).scale
    moved = annotations.moved(facts.bounds.x, facts.bounds.y) if facts.bounds else annotations
    size = facts.size_l0
    for where, box in (*((area.where, area.box) for area in moved.areas), *map(_line_box, moved.lines)):
        if box[0] >= size.width or box[1] >= size.height or box[2] <= 0 or box[3] <= 0:
            raise DatasetError(
                f"{where} is not on the slide of {size.width} × {size.height} pixels. Is the file of another slide?"
            )
    areas = tuple(LabelledArea(area, labels[area.name]) for area in moved.areas)
    drawn = DrawnSlide(
        source, areas, moved.lines, tuple(_length_mm(line, scale) for line in moved.lines), facts.is_phantom
    )
    for label in dict.fromkeys(each.label for each in areas):
        if label is not None and (problem := outcome_problem(label, source.outcome, card)):
            raise DatasetError(f"The column outcome of the manifest: {problem}")
    return drawn


def cut_slide(drawn: DrawnSlide, card: ModelCard, folder: Path, *, backgrounds: int, seed: int) -> CutSlide:
    """Write a slide's tiles below the folder of a data set, as `tiles/<slide>/<place>.png`.

    Args:
        drawn: the slide.
        card: says how tiles are read.
        folder: of the data set.
        backgrounds: how many tiles of tissue without any annotation.
        seed: decides which.

    Raises:
        MminferError: as in `plan_slide`; OSError where a file cannot be written.
    """
    own = drawn.source
    with open_slide(own.path) as slide:
        plan = plan_slide(slide, card, own.settings)
        placed = place_over(drawn.areas, drawn.lines, plan, card)
        left_out = Counter(placed.left_out)
        nothing = background(drawn.areas, plan, card, count=backgrounds, seed=f"{seed}/{own.name}")
        labels = [*placed.labels, *nothing]
        tiles: list[LabelledTile] = []
        (folder / own.tile_folder).mkdir(parents=True)
        wanted = [Tile(i, tile.rect_l0, tile.tissue_fraction, tile.outside_fraction)
                  for i, (tile, _) in enumerate(labels)]  # fmt: skip
        with read_tiles(slide, plan, tiles=wanted, threads=available_cores()) as pixels:
            for read, (tile, label) in zip(pixels, labels, strict=True):
                if read.pixels is None:
                    left_out[UNREADABLE] += 1
                    continue
                row = _row(drawn, tile, label, card)
                Image.fromarray(read.pixels).save(folder / row.tile)
                tiles.append(row)
    scale, side_um = plan.scale.scale, plan.geometry.tile_um
    size = SizePx(l0_from_um(side_um, scale.x_um), l0_from_um(side_um, scale.y_um))
    return CutSlide(tuple(tiles), size, drawn, left_out)


def _row(drawn: DrawnSlide, tile: Tile, label: str, card: ModelCard) -> LabelledTile:
    own, rect = drawn.source, tile.rect_l0
    depth, whole = None, None
    if is_malignant(label, card):
        inside = [mm for line, mm in zip(drawn.lines, drawn.lines_mm, strict=True) if _holds(rect, line)]
        depth = max(inside, default=drawn.breslow_mm)
        whole = bool(inside) if drawn.lines else None
    return LabelledTile(
        tile=f"{own.tile_folder}/x{rect.x}_y{rect.y}.png",
        slide=own.name,
        case_id=own.case_id,
        x_l0=rect.x,
        y_l0=rect.y,
        um_per_px=card.tile_side_um / card.tile_px,
        label=label,
        breslow_mm=None if depth is None else round(depth, 4),
        surface_in_tile=whole,
        values=own.values,
        outcome=own.outcome,
        split=own.split,
    )


def _holds(rect: RectPx, line: BreslowLine) -> bool:
    low, high = line.ends.min(axis=0), line.ends.max(axis=0)
    return bool(low[0] >= rect.x and high[0] <= rect.right and low[1] >= rect.y and high[1] <= rect.bottom)


def _length_mm(line: BreslowLine, scale: Scale) -> float:
    dx, dy = line.ends[1] - line.ends[0]
    return math.hypot(dx * scale.x_um, dy * scale.y_um) / 1000


def _line_box(line: BreslowLine) -> tuple[str, tuple[float, float, float, float]]:
    return line.where, (*line.ends.min(axis=0), *line.ends.max(axis=0))
