"""Annotated slides → tiles with labels, with the pixels that `score` would see at the same places."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.annotations import Annotations, Area, BreslowLine, Ring
from melanoma_infer.datasets.area_rule import LabelledArea, samples_inside
from melanoma_infer.datasets.cells import breslow_problem
from melanoma_infer.datasets.checks import outcome_problem
from melanoma_infer.datasets.labels import LabelledSlide, LabelledTile, Split, is_malignant, no_lesion, rank
from melanoma_infer.datasets.placing import background, holds, place_over
from melanoma_infer.datasets.tile_png import mask_name, save_mask, save_tile
from melanoma_infer.errors import DatasetError
from melanoma_infer.geometry import RectPx, Scale, SizePx, l0_from_um
from melanoma_infer.records import Tile
from melanoma_infer.runtime.cores import available_cores, reader_count
from melanoma_infer.runtime.privacy import safe_name
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.scale import known_scale
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tiles

AGREES_MM, AGREES_SHARE = 0.2, 0.15
"""Two measurements of one thickness agree to within 0.2 mm or 15 %: pathologists do."""
BEYOND_UM = 100.0
"""How far a hand that follows the edge of a slide may draw beyond it."""
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
    doubts: tuple[str, ...]
    """About the slide's files and where its annotations are, in sentences."""

    @property
    def breslow_mm(self) -> float | None:
        """The longest line, else what the manifest says."""
        return max(self.lines_mm, default=self.source.breslow_mm)

    @property
    def all_doubts(self) -> tuple[str, ...]:
        """What should be checked about the slide: `doubts`, and a line that is not as long as was reported."""
        reported, drawn = self.source.breslow_mm, self.breslow_mm
        if reported is None or drawn is None or abs(drawn - reported) <= max(AGREES_MM, AGREES_SHARE * reported):
            return self.doubts
        return (
            *self.doubts,
            f"The longest line named Breslow is {drawn:.2f} mm long, and the manifest says {reported:g} mm. The line "
            "is used; check which is right.",
        )

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
        known = known_scale(facts, source.settings.mpp_um)
    if known.contradiction and known.source == "slide":
        raise DatasetError(f"The slide states two scales: {known.contradiction}. Give the true one with --mpp.")
    moved = annotations.moved(facts.bounds.x, facts.bounds.y) if facts.bounds else annotations
    _require_on_slide((*moved.areas, *moved.lines), facts.size_l0)
    areas = tuple(LabelledArea(area, labels[area.name]) for area in moved.areas)
    for label in dict.fromkeys(each.label for each in areas):
        if label is not None and (problem := outcome_problem(label, source.outcome, card)):
            raise DatasetError(f"The column outcome of the manifest: {problem}")
    lengths = tuple(_length_mm(line, known.scale) for line in moved.lines)
    for line, length in zip(moved.lines, lengths, strict=True):
        if problem := breslow_problem(length):
            raise DatasetError(f"{line.where}: {problem}")
    _require_outlined(source, areas, moved.lines, card)
    beyond = _beyond_the_slide((*moved.areas, *moved.lines), facts.size_l0, known.scale)
    return DrawnSlide(source, areas, moved.lines, lengths, facts.is_phantom, (*facts.doubts, *beyond))


def _require_outlined(
    source: SlideSource, areas: Iterable[LabelledArea], lines: Sequence[BreslowLine], card: ModelCard
) -> None:
    """Require an outlined tumour where a thickness is stated: else the tumour is taught as tissue without a lesion."""
    if any(each.label and is_malignant(each.label, card) for each in areas):
        return
    if lines:
        raise DatasetError(
            f"{lines[0].where} is a thickness, but nothing malignant is outlined: the tumour would be taken for "
            "tissue without a lesion. Outline it, or delete the line."
        )
    if source.breslow_mm is not None:
        raise DatasetError(
            f"The manifest states a thickness of {source.breslow_mm:g} mm, but nothing malignant is outlined: the "
            "tumour would be taken for tissue without a lesion. Outline it; if this slide shows none of it, leave "
            "its breslow_mm blank."
        )


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
        labels = [*placed.tiles, *nothing]
        tiles: list[LabelledTile] = []
        (folder / own.tile_folder).mkdir(parents=True)
        wanted = [replace(tile, index=i) for i, (tile, _) in enumerate(labels)]
        with read_tiles(slide, plan, Feed(reader_count(available_cores())), tiles=wanted) as pixels:
            for read, (tile, label) in zip(pixels, labels, strict=True):
                if read.pixels is None:
                    left_out[UNREADABLE] += 1
                    continue
                row = _row(drawn, tile, label, card)
                save_tile(folder / row.tile, read.pixels, is_phantom=drawn.is_phantom)
                if row.mask is not None:
                    save_mask(folder / row.mask, _lesion_in(tile.rect_l0, drawn.areas, card))
                tiles.append(row)
    scale, side_um = plan.scale.scale, plan.geometry.tile_um
    size = SizePx(l0_from_um(side_um, scale.x_um), l0_from_um(side_um, scale.y_um))
    return CutSlide(tuple(tiles), size, drawn, left_out)


def _row(drawn: DrawnSlide, tile: Tile, label: str, card: ModelCard) -> LabelledTile:
    own, rect = drawn.source, tile.rect_l0
    depth, whole = None, None
    if is_malignant(label, card):
        inside = [mm for line, mm in zip(drawn.lines, drawn.lines_mm, strict=True) if holds(rect, line)]
        depth = max(inside, default=drawn.breslow_mm)
        whole = bool(inside) if drawn.lines else None
    name = f"{own.tile_folder}/x{rect.x}_y{rect.y}.png"
    return LabelledTile(
        tile=name,
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
        mask=None if label == no_lesion(card) else mask_name(name),
    )


def _lesion_in(rect: RectPx, areas: Iterable[LabelledArea], card: ModelCard) -> NDArray[np.bool_]:
    """Where a tile shows a lesion, bool (tile_px, tile_px)."""
    inside = np.zeros((card.tile_px, card.tile_px), np.bool_)
    for each in areas:
        if each.label not in (None, no_lesion(card)):
            inside |= samples_inside(each.area.rings, rect, card.tile_px)
    return inside


def _require_on_slide(drawn: Iterable[Area | BreslowLine], size: SizePx) -> None:
    for each in drawn:
        left, top, right, bottom = each.box
        if left >= size.width or top >= size.height or right <= 0 or bottom <= 0:
            raise DatasetError(
                f"{each.where} is not on the slide of {size.width} × {size.height} pixels. Check that the file is this "
                "slide's."
            )


def _beyond_the_slide(drawn: Iterable[Area | BreslowLine], size: SizePx, scale: Scale) -> Iterator[str]:
    """A sentence about the annotation that reaches farthest beyond the slide: the file may be another slide's."""
    where, farthest_um = "", BEYOND_UM
    for each in drawn:
        left, top, right, bottom = each.box
        um = max(max(-left, right - size.width) * scale.x_um, max(-top, bottom - size.height) * scale.y_um)
        if um > farthest_um:
            where, farthest_um = each.where, um
    if where:
        yield f"{where} reaches {farthest_um / 1000:.2f} mm beyond the slide. Check that the file is this slide's."


def _length_mm(line: BreslowLine, scale: Scale) -> float:
    dx, dy = line.ends[1] - line.ends[0]
    return math.hypot(dx * scale.x_um, dy * scale.y_um) / 1000
