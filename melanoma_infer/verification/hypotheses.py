"""What the user's code may have done differently: each hypothesis is a way to read a tile and an engine to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Engine
from melanoma_infer.errors import EngineUnavailableError, UsageError
from melanoma_infer.geometry import RectPx
from melanoma_infer.records import Tile
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.pixels import read_tile
from melanoma_infer.tiles.plan import SlidePlan
from melanoma_infer.tiles.read_plan import ReadPlan, read_plan
from melanoma_infer.verification.mistakes import Rgb, graph_engine, input_mistakes

Read = Callable[[Slide, RectPx], Rgb | None]

REGION_PIXELS_MAX = 1 << 26
"""Pixels of the largest region that is held in memory for a hypothesis: 200 MB."""
FILTERS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
    "Pillow's bilinear, antialiased": Image.Resampling.BILINEAR,
}
SHIFTS = {
    (1, 0): "right",
    (-1, 0): "left",
    (0, 1): "down",
    (0, -1): "up",
    (1, 1): "right and down",
    (-1, -1): "left and up",
    (1, -1): "right and up",
    (-1, 1): "left and down",
}


@dataclass(frozen=True)
class Hypothesis:
    """A cause in words, how a tile is read under it, and the engine; None for the engine that is compared."""

    name: str
    read: Read
    engine: Engine | None = None


def hypotheses(bundle: Bundle, plan: SlidePlan) -> list[Hypothesis]:
    """All hypotheses: channels, normalisation, resize, half-tile shifts, pyramid levels, swapped axes."""
    reading = plan.reading
    filters = [
        (name, resample)
        for name, resample in FILTERS.items()
        if resample != Image.Resampling.BILINEAR or bundle.card.resize != "pillow-bilinear"
    ]
    return [
        *_inputs(bundle, reading),
        *(Hypothesis(f"another resize ({name})", _resized(reading, resample)) for name, resample in filters),
        Hypothesis("another resize (bilinear without antialiasing, as OpenCV and torch do)", _resized(reading, None)),
        *(
            Hypothesis(
                f"half-tile shift (your tiles are half a tile further {words})",
                _changed(reading, lambda tile: tile, by),
            )
            for by, words in SHIFTS.items()
        ),
        *_levels(bundle, plan),
    ]


def _inputs(bundle: Bundle, plan: ReadPlan) -> Iterator[Hypothesis]:
    for mistake in input_mistakes(bundle.card):
        engine = None
        if not mistake.swapped:
            graph = mistake.made(bundle.graphs["fp32"])
            if graph is None:
                continue
            try:
                engine = graph_engine(bundle, graph)
            except EngineUnavailableError:
                continue
        yield Hypothesis(mistake.name, _changed(plan, mistake.pixels), engine)
    yield Hypothesis("x and y swapped (tiles transposed)", _changed(plan, lambda tile: tile.transpose(1, 0, 2)))


def _levels(bundle: Bundle, plan: SlidePlan) -> Iterator[Hypothesis]:
    for level, downsample in enumerate(plan.facts.level_downsamples):
        if level == plan.reading.level:
            continue
        # As the card would have it read, if this were the only level.
        facts = replace(plan.facts, level_downsamples=(downsample,))
        try:
            reading = read_plan(facts, plan.scale.scale, plan.geometry, bundle.card)
        except UsageError:
            continue
        read = _changed(replace(reading, level=level, downsample=downsample), lambda tile: tile)
        yield Hypothesis(f"another pyramid level ({level} in place of {plan.reading.level})", read)


def _changed(plan: ReadPlan, change: Callable[[Rgb], Rgb], by: tuple[int, int] = (0, 0)) -> Read:
    """Tiles that are `by` half tiles further right and down, read by the plan and then changed."""

    def read(reader: Slide, rect_l0: RectPx) -> Rgb | None:
        if rect_l0.area / plan.downsample**2 > REGION_PIXELS_MAX and plan.block_px == 1:
            return None
        dx, dy = round(by[0] * rect_l0.width / 2), round(by[1] * rect_l0.height / 2)
        moved = replace(rect_l0, x=rect_l0.x + dx, y=rect_l0.y + dy)
        pixels = read_tile(reader, Tile(0, moved, 1.0, 0.0), plan).pixels
        return None if pixels is None else np.ascontiguousarray(change(pixels))

    return read


def _resized(plan: ReadPlan, resample: Image.Resampling | None) -> Read:
    """Tiles whose region is read in one piece and resized in one step by Pillow's filter.

    None: bilinear interpolation at the centres of the output's pixels, without antialiasing.
    """
    size = (plan.tile_px, plan.tile_px)

    def read(reader: Slide, rect_l0: RectPx) -> Rgb | None:
        left, top, right, bottom = (
            edge / plan.downsample for edge in (rect_l0.x, rect_l0.y, rect_l0.right, rect_l0.bottom)
        )
        x, y = math.floor(left), math.floor(top)
        region = RectPx(x, y, math.ceil(right) - x, math.ceil(bottom) - y)
        if region.area > REGION_PIXELS_MAX:
            return None
        pixels = reader.read_rgb(plan.level, region)
        if pixels is None:
            return None
        image = Image.fromarray(pixels.pixels)
        box = left - x, top - y, right - x, bottom - y
        if resample is not None:
            return np.array(image.resize(size, resample, box=box))
        across, down = (box[2] - box[0]) / plan.tile_px, (box[3] - box[1]) / plan.tile_px
        affine = (across, 0.0, box[0], 0.0, down, box[1])
        return np.array(image.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))

    return read
