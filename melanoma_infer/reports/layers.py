"""The layers of a picture: the slide, the heat, hatching where nothing was evaluated, and the outlines of regions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from melanoma_infer.records import SlideView
from melanoma_infer.reports.drawing import INK, QUIET, RAMP, WHITE, font, opacity, steps_of, with_palette
from melanoma_infer.reports.frame import Frame, sampled
from melanoma_infer.result import Region, SlideResult

HatchKind = Literal["not evaluated", "unreadable", "pen ink, excluded", "beyond the slide (padded)"]
HATCH_PERIOD_PX = 12
HATCH_LINE_PX = 2
LISTED_MAX = 12
LISTED_ALWAYS = 3
SMALL_MM2 = 0.05
"""A circle of 0.25 mm. A model that finds nothing firm leaves a hundred such regions, and no reader wants them one by
one."""


def slide_layer(view: SlideView, frame: Frame) -> Image.Image:
    """The thumbnail at the frame's size; white beyond the slide."""
    picture = Image.new("RGB", frame.shape[::-1], WHITE)
    smaller = frame.width < view.thumbnail.shape[1]
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    picture.paste(Image.fromarray(view.thumbnail).resize((frame.width, frame.height), how), (0, 0))
    return picture


def heat_steps(view: SlideView, frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Evidence on the frame in steps of the ramp, and where it is known.

    It is not known on background, on pen ink, and where the slide could not be read.
    """
    values, cell_l0 = view.evidence.values, view.evidence.cell_l0
    known = _mask_on(frame, view, view.tissue & ~view.ink & ~view.unread)
    known &= sampled(~np.isnan(values), cell_l0, frame, False)
    return np.where(known, sampled(steps_of(values), cell_l0, frame, 0), np.uint8(0)), known


def heat_layer(view: SlideView, frame: Frame, strongest: float) -> Image.Image:
    """The heat to lay over the thumbnail: a picture with a palette, each step of the ramp with its opacity."""
    steps, _ = heat_steps(view, frame)
    alpha = np.round(opacity(np.arange(256) / 255, strongest) * 255).astype(np.uint8)
    return with_palette(steps, np.column_stack([RAMP, alpha]))


def hatched(result: SlideResult, view: SlideView, frame: Frame) -> dict[HatchKind, NDArray[np.bool_]]:
    """The areas to hatch on the frame, by kind; kinds that do not occur are left out."""
    tissue, unread, ink = (_mask_on(frame, view, mask) for mask in (view.tissue, view.unread, view.ink))
    ok, failed = (_covered(result, frame, status) for status in ("ok", "unreadable"))
    inside = np.zeros(frame.shape, np.bool_)
    inside[: frame.height, : frame.width] = True
    kinds: dict[HatchKind, NDArray[np.bool_]] = {
        "not evaluated": tissue & ~ok & ~failed & ~unread,
        "unreadable": unread | (tissue & failed & ~ok),
        "pen ink, excluded": ink & ~unread,
        "beyond the slide (padded)": ok & ~inside,
    }
    return {kind: mask for kind, mask in kinds.items() if mask.any()}


def hatch_layer(kinds: dict[HatchKind, NDArray[np.bool_]], frame: Frame) -> Image.Image:
    """The hatching as a picture with a palette: dark lines on a translucent white."""
    layer = np.zeros(frame.shape, np.uint8)
    for kind, mask in kinds.items():
        layer[mask] = 1
        layer[mask & hatch_lines(kind, frame.shape)] = 2
    return with_palette(layer, np.array([(0, 0, 0, 0), (*WHITE, 120), (*QUIET, 255)], np.uint8))


def hatch_lines(kind: HatchKind, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The lines of one kind of hatching over a whole picture, bool (rows, columns)."""
    y, x = np.ogrid[:HATCH_PERIOD_PX, :HATCH_PERIOD_PX]
    rising = (x + y) % HATCH_PERIOD_PX < HATCH_LINE_PX
    falling = (x - y) % HATCH_PERIOD_PX < HATCH_LINE_PX
    horizontal = np.broadcast_to(y % (HATCH_PERIOD_PX // 2) < HATCH_LINE_PX, rising.shape)
    lines = {
        "not evaluated": rising,
        "unreadable": rising | falling,
        "pen ink, excluded": horizontal,
        "beyond the slide (padded)": falling,
    }
    repeats = [-(-length // HATCH_PERIOD_PX) for length in shape]
    return np.tile(lines[kind], repeats)[: shape[0], : shape[1]]


def listed(regions: Sequence[Region]) -> Sequence[Region]:
    """The regions that get a label and a row of their own: the largest twelve; after three, only those of some size."""
    return [
        region
        for place, region in enumerate(regions[:LISTED_MAX])
        if place < LISTED_ALWAYS or region.area_mm2 >= SMALL_MM2
    ]


def draw_outlines(picture: Image.Image, regions: Sequence[Region], frame: Frame) -> None:
    """Draw the rings of the regions: dark with a light rim, visible on any colour; those of benign regions dashed."""
    draw, labelled = ImageDraw.Draw(picture), listed(regions)
    names = {region.id for region in labelled}
    for region in regions:
        rim, width = (5, 2) if region.id in names else (3, 1)
        for ring in (region.outline, *region.holes):
            points = frame.points(ring)
            draw.line(points, WHITE, rim)
            for line in [points] if region.class_ == "malignant" else dashes(points):
                draw.line(line, INK, width)
    for region in labelled:
        x, y = min(frame.points(region.outline), key=lambda point: (point[1], point[0]))
        draw.text((x + 6, y + 4), region.id, INK, font(18), stroke_width=3, stroke_fill=WHITE)


def dashes(points: Sequence[tuple[float, float]], dash: float = 9.0, gap: float = 6.0) -> Iterator[list[Any]]:
    """The dashes of a line through these points; every corner is on a dash."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        count = max(1, round((length - dash) / (dash + gap)))
        for i in range(count + 1):
            begin = i * (length - dash) / count if length > dash else 0.0
            end = min(length, begin + dash)
            place = [(t / length if length else 0.0) for t in (begin, end)]
            yield [(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in place]


def _mask_on(frame: Frame, view: SlideView, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return sampled(mask, (view.px_l0, view.px_l0), frame, False)


def _covered(result: SlideResult, frame: Frame, status: str) -> NDArray[np.bool_]:
    """The area that tiles of this status cover."""
    tiles, covered = result.tiles, np.zeros(frame.shape, np.bool_)
    edges = (tiles.minx, tiles.miny, tiles.minx + tiles.width, tiles.miny + tiles.height)
    left, top, right, bottom = (np.maximum(0, np.round(edge / frame.px_l0).astype(int)) for edge in edges)
    for row in np.flatnonzero(tiles.status == status):
        covered[top[row] : bottom[row], left[row] : right[row]] = True
    return covered
