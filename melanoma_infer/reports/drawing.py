"""What the pictures share: where the slide lies on them, the colours of evidence, hatching, outlines and the key.

Evidence is shown on one scale from 0 to 1, the same for every slide and every model, in cells of their true size. Its
colours are one ramp from light to dark through green-blue, which stained tissue does not hold; it stays ordered in
grey and for colour-blind readers. Where nothing was evaluated there is hatching, never a colour.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from melanoma_infer.records import SlideView
from melanoma_infer.reports import words
from melanoma_infer.result import Region, SlideResult

PICTURE_PX = 1240
"""Longest side of the slide on a picture; with what lies beyond it and the key, a picture stays near 1600 px."""
ZOOM_MAX = 10.0
"""A small slide is enlarged at most this much: beyond it there is nothing to see."""
OVERHANG = 0.08
"""Tiles that reach beyond the slide are drawn to this share of its longest side, so that the slide stays large."""

INK = (27, 35, 40)
QUIET = (84, 96, 104)
LINE = (198, 205, 210)
WHITE = (255, 255, 255)
TISSUE_TINT = (228, 190, 208)
"""What the key lays the ramp on, where heat is laid on tissue."""
OPACITY_MAX = 0.70
"""Tissue stays to be seen under the strongest heat."""

_ANCHORS = (
    (0.00, (240, 246, 222)),
    (0.15, (206, 231, 196)),
    (0.30, (147, 209, 178)),
    (0.50, (62, 170, 164)),
    (0.70, (14, 124, 144)),
    (0.85, (6, 86, 118)),
    (1.00, (2, 50, 88)),
)
"""Lightness falls all the way, from 96 to 20 (CIELAB)."""

HatchKind = Literal["not evaluated", "unreadable", "pen ink, left out", "beyond the slide (padded)"]
HATCH_PERIOD_PX = 12
HATCH_LINE_PX = 2
LABELS_MAX = 12
"""Regions that are labelled on a picture, largest first; the others are outlined."""


def _ramp() -> NDArray[np.uint8]:
    places = np.linspace(0, 1, 256)
    stops = [place for place, _ in _ANCHORS]
    channels = [np.interp(places, stops, [colour[i] for _, colour in _ANCHORS]) for i in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


RAMP = _ramp()
"""Colours of evidence, uint8 (256, 3), from 0 to 1."""


@dataclass(frozen=True)
class Frame:
    """Where the slide lies on a picture: its upper left corner at (0, 0), `px_l0` l0 pixels to a picture pixel.

    width, height: of the slide · beyond: columns and rows to the right and below, where tiles reach beyond the slide.
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
        """L0 points (x, y) on the picture."""
        return [(x / self.px_l0, y / self.px_l0) for x, y in ring]


def frame_of(result: SlideResult, view: SlideView, longest_px: int = PICTURE_PX) -> Frame:
    """The slide, as large as it may be drawn."""
    height, width = view.tissue.shape
    zoom = min(ZOOM_MAX, longest_px / max(height, width))
    px_l0 = view.px_l0 / zoom
    width, height = max(1, round(width * zoom)), max(1, round(height * zoom))
    return Frame(width, height, px_l0, _beyond(result, px_l0, round(OVERHANG * max(width, height))))


def _beyond(result: SlideResult, px_l0: float, most: int) -> tuple[int, int]:
    tiles = result.tiles
    if not len(tiles):
        return 0, 0
    right = int((tiles.minx + tiles.width).max()) - result.slide.width_px
    bottom = int((tiles.miny + tiles.height).max()) - result.slide.height_px
    return min(most, max(0, math.floor(right / px_l0))), min(most, max(0, math.floor(bottom / px_l0)))


def steps_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Evidence in 0–1 in the ramp's 256 steps; NaN is taken as 0."""
    return np.asarray(np.round(np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * 255).astype(np.uint8))


def colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours uint8 (…, 3) of evidence (…,) in 0–1; NaN is taken as 0."""
    return np.asarray(RAMP[steps_of(values)])


def opacity(values: NDArray[Any]) -> NDArray[np.float64]:
    """How much heat hides what lies below it: nothing at 0, steeply at first; NaN is nothing."""
    return np.asarray(OPACITY_MAX * np.sqrt(np.clip(np.nan_to_num(values, nan=0.0), 0, 1)))


def sampled(plane: NDArray[Any], cell_l0: tuple[float, float], frame: Frame, outside: Any) -> NDArray[Any]:
    """A plane of cells on the frame, nearest cell, so that every cell keeps its size; `outside` beyond its edge."""
    rows, columns = frame.shape
    y = ((np.arange(rows) + 0.5) * frame.px_l0 / cell_l0[1]).astype(np.intp)
    x = ((np.arange(columns) + 0.5) * frame.px_l0 / cell_l0[0]).astype(np.intp)
    picture = np.full((rows, columns), outside, plane.dtype)
    y, x = y[y < plane.shape[0]], x[x < plane.shape[1]]
    picture[: len(y), : len(x)] = plane.take(x, axis=1).take(y, axis=0)  # np.ix_ takes six times as long
    return picture


def heat_steps(view: SlideView, frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Evidence on the frame in steps of the ramp, and where it is known: not over glass, ink and what was not read."""
    values, cell_l0 = view.evidence.values, view.evidence.cell_l0
    known = _masked(view.tissue & ~view.ink & ~view.unread, view, frame)
    known &= sampled(~np.isnan(values), cell_l0, frame, False)
    return np.where(known, sampled(steps_of(values), cell_l0, frame, 0), np.uint8(0)), known


def heat_layer(view: SlideView, frame: Frame) -> Image.Image:
    """The heat, to be laid on the thumbnail: a picture with a palette, each step of the ramp with its opacity."""
    steps, _ = heat_steps(view, frame)
    alpha = np.round(opacity(np.arange(256) / 255) * 255).astype(np.uint8)
    return _with_palette(steps, np.column_stack([RAMP, alpha]))


def slide_layer(view: SlideView, frame: Frame) -> Image.Image:
    """The thumbnail at the frame's size; white beyond the slide."""
    picture = Image.new("RGB", frame.shape[::-1], WHITE)
    smaller = frame.width < view.thumbnail.shape[1]
    how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    picture.paste(Image.fromarray(view.thumbnail).resize((frame.width, frame.height), how), (0, 0))
    return picture


def hatched(result: SlideResult, view: SlideView, frame: Frame) -> dict[HatchKind, NDArray[np.bool_]]:
    """What is hatched on the frame, by kind; only what there is."""
    tissue, unread, ink = (_masked(mask, view, frame) for mask in (view.tissue, view.unread, view.ink))
    ok, failed = (_covered(result, frame, status) for status in ("ok", "unreadable"))
    inside = np.zeros(frame.shape, np.bool_)
    inside[: frame.height, : frame.width] = True
    kinds: dict[HatchKind, NDArray[np.bool_]] = {
        "not evaluated": tissue & ~ok & ~failed & ~unread,
        "unreadable": unread | (tissue & failed & ~ok),
        "pen ink, left out": ink & ~unread,
        "beyond the slide (padded)": ok & ~inside,
    }
    return {kind: mask for kind, mask in kinds.items() if mask.any()}


def hatch_layer(kinds: dict[HatchKind, NDArray[np.bool_]], frame: Frame) -> Image.Image:
    """The hatching, a picture with a palette: dark lines on a light veil."""
    layer = np.zeros(frame.shape, np.uint8)
    for kind, mask in kinds.items():
        layer[mask] = 1
        layer[mask & hatch_lines(kind, frame.shape)] = 2
    return _with_palette(layer, np.array([(0, 0, 0, 0), (*WHITE, 120), (*QUIET, 255)], np.uint8))


def hatch_lines(kind: HatchKind, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The lines of one kind of hatching over a whole picture."""
    y, x = np.ogrid[:HATCH_PERIOD_PX, :HATCH_PERIOD_PX]
    rising = (x + y) % HATCH_PERIOD_PX < HATCH_LINE_PX
    falling = (x - y) % HATCH_PERIOD_PX < HATCH_LINE_PX
    level = np.broadcast_to(y % (HATCH_PERIOD_PX // 2) < HATCH_LINE_PX, rising.shape)
    lines = {
        "not evaluated": rising,
        "unreadable": rising | falling,
        "pen ink, left out": level,
        "beyond the slide (padded)": falling,
    }
    repeats = [-(-length // HATCH_PERIOD_PX) for length in shape]
    return np.tile(lines[kind], repeats)[: shape[0], : shape[1]]


def draw_outlines(picture: Image.Image, regions: Sequence[Region], frame: Frame) -> None:
    """Draw the regions' rings: dark with a light rim, to be seen on any colour; benign ones dashed."""
    draw = ImageDraw.Draw(picture)
    for region in regions:
        for ring in (region.outline, *region.holes):
            points = frame.points(ring)
            draw.line(points, WHITE, 5)
            dashes = [points] if region.class_ == "malignant" else list(_dashes(points))
            for dash in dashes:
                draw.line(dash, INK, 2)
    for region in regions[:LABELS_MAX]:
        x, y = min(frame.points(region.outline), key=lambda point: (point[1], point[0]))
        draw.text((x + 6, y + 4), region.id, INK, font(18), stroke_width=3, stroke_fill=WHITE)


def round_mm(longest_mm: float) -> float:
    """The longest of 1, 2, 5 × 10ⁿ mm that is not longer."""
    power: float = 10.0 ** math.floor(math.log10(longest_mm) + 1e-9)
    return max(digit * power for digit in (1, 2, 5) if digit * power <= longest_mm * (1 + 1e-9))


def scale_bar(frame: Frame, um_per_px_l0: float, share: float = 0.28) -> tuple[float, int]:
    """A scale bar of at most a share of the slide's width: its length in mm and in picture pixels."""
    mm_per_px = um_per_px_l0 * frame.px_l0 / 1000
    mm = round_mm(max(frame.width, 320) * share * mm_per_px)
    return mm, round(mm / mm_per_px)


def with_key(
    picture: Image.Image, result: SlideResult, frame: Frame, kinds: Iterable[HatchKind], *, on_slide: bool
) -> Image.Image:
    """The picture above its key: colour bar with the threshold, scale bar, outlines, hatching and notes."""
    notes = list(_notes(result))
    width = max(picture.width, 720) + 2 * _MARGIN
    key = _Key(width, result, frame, on_slide=on_slide)
    entries = _entries(result.regions if on_slide else (), tuple(kinds))
    lines = key.lines_of(entries)
    page = Image.new("RGB", (width, picture.height + _MARGIN + 100 + 30 * lines + 26 * len(notes) + _MARGIN), WHITE)
    page.paste(picture, ((width - picture.width) // 2, _MARGIN))
    key.draw(page, picture.height + _MARGIN, entries, notes)
    return page


def without_view() -> bytes:
    """What stands in place of a picture where the slide was not at hand."""
    page = Image.new("RGB", (720, 120), WHITE)
    ImageDraw.Draw(page).text((_MARGIN, 44), "No picture: the slide was not read for this result.", INK, font(20))
    return png(page)


def png(picture: Image.Image) -> bytes:
    """The picture as PNG, the same bytes for the same picture."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


_MARGIN = 24


@dataclass(frozen=True)
class _Entry:
    """One entry of the key."""

    kind: HatchKind | Literal["malignant", "benign"]
    text: str


class _Key:
    """What stands below a picture."""

    def __init__(self, width: int, result: SlideResult, frame: Frame, *, on_slide: bool) -> None:
        self._width, self._result, self._frame, self._on_slide = width, result, frame, on_slide

    def lines_of(self, entries: Sequence[_Entry]) -> int:
        """Lines that the entries need."""
        return max((line for line, _, _ in self._placed(entries)), default=-1) + 1

    def draw(self, page: Image.Image, top: int, entries: Sequence[_Entry], notes: Sequence[str]) -> None:
        """Draw it on a page, from `top` down."""
        self._colour_bar(page, top + 40)
        self._scale_bar(page, top + 40)
        for line, x, entry in self._placed(entries):
            self._entry(page, x, top + 100 + 30 * line, entry)
        y = top + 100 + 30 * self.lines_of(entries)
        draw = ImageDraw.Draw(page)
        for i, note in enumerate(notes):
            draw.text((_MARGIN, y + 26 * i), note, QUIET, font(16))

    def _placed(self, entries: Sequence[_Entry]) -> Iterator[tuple[int, int, _Entry]]:
        """Line and left edge of each entry."""
        line, x = 0, _MARGIN
        for entry in entries:
            width = 44 + round(font(16).getlength(entry.text)) + 28
            if x > _MARGIN and x + width > self._width - _MARGIN:
                line, x = line + 1, _MARGIN
            yield line, x, entry
            x += width

    def _colour_bar(self, page: Image.Image, y: int) -> None:
        draw, width, height = ImageDraw.Draw(page), 300, 16
        values = np.linspace(0, 1, width)
        bar = colours(values).astype(np.float64)
        if self._on_slide:
            part = opacity(values)[:, None]
            bar = bar * part + np.array(TISSUE_TINT) * (1 - part)
        pixels = np.broadcast_to(np.round(bar).astype(np.uint8), (height, width, 3))
        page.paste(Image.fromarray(np.ascontiguousarray(pixels)), (_MARGIN, y))
        draw.rectangle((_MARGIN, y, _MARGIN + width - 1, y + height - 1), outline=QUIET)
        draw.text((_MARGIN, y - 26), "evidence of a lesion in a cell", INK, font(16))
        for value in (0, 1):
            draw.text((_MARGIN + value * width, y + 21), str(value), INK, font(16), anchor="mt" if value else "lt")
        if self._result.card is None:
            return
        threshold = self._result.card.region_threshold
        x = _MARGIN + round(threshold * (width - 1))
        draw.line((x, y - 5, x, y + height + 4), WHITE, 6)
        draw.line((x, y - 6, x, y + height + 5), INK, 2)
        draw.text((x, y + 24), f"region threshold {words.score(threshold)}", INK, font(16), anchor="mt")

    def _scale_bar(self, page: Image.Image, y: int) -> None:
        draw = ImageDraw.Draw(page)
        mm, length = scale_bar(self._frame, self._result.scale.x_um_per_px)
        right = self._width - _MARGIN
        draw.rectangle((right - length, y + 4, right - 1, y + 11), fill=INK)
        draw.text((right - length / 2, y - 26), f"{mm:g} mm", INK, font(18), anchor="mt")

    def _entry(self, page: Image.Image, x: int, y: int, entry: _Entry) -> None:
        draw = ImageDraw.Draw(page)
        if entry.kind == "malignant" or entry.kind == "benign":
            points = [(float(x), y + 9.0), (x + 34.0, y + 9.0)]
            for dash in [points] if entry.kind == "malignant" else list(_dashes(points)):
                draw.line(dash, INK, 3)
        else:
            sample = np.full((18, 34, 3), 255, np.uint8)
            sample[hatch_lines(entry.kind, (18, 34))] = QUIET
            page.paste(Image.fromarray(sample), (x, y))
            draw.rectangle((x, y, x + 33, y + 17), outline=QUIET)
        draw.text((x + 44, y), entry.text, INK, font(16))


def _entries(regions: Sequence[Region], kinds: Sequence[HatchKind]) -> list[_Entry]:
    """What the key explains: only what the picture holds."""
    classes = {region.class_ for region in regions}
    drawn: tuple[Literal["malignant", "benign"], ...] = ("malignant", "benign")
    outlines = [_Entry(name, f"{name} region") for name in drawn if name in classes]
    return [*outlines, *(_Entry(kind, kind) for kind in kinds)]


def _notes(result: SlideResult) -> Iterator[str]:
    """What must be said wherever the picture goes; plain letters, for Pillow's own font holds no others."""
    if reason := words.means_nothing(result):
        yield reason
    view = result.view
    if view is not None:
        side = words.mm(view.evidence.cell_l0[0] * result.scale.x_um_per_px / 1000)
        what = "tile (the model gives no finer map)" if view.evidence.source == "tile" else "cell of the model's map"
        yield f"One square is one {what}: {side} mm. The scale is 0 to 1 on every slide."
    if result.slide.is_phantom:
        yield "A drawn phantom: it says nothing about tissue or patients."
    yield words.RESEARCH_USE


def _with_palette(places: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    """A picture (h, w) of places in a palette (n, 4) of RGBA: small as a PNG."""
    picture = Image.fromarray(places)
    picture.putpalette(palette.tobytes(), "RGBA")
    return picture


def _masked(mask: NDArray[np.bool_], view: SlideView, frame: Frame) -> NDArray[np.bool_]:
    return sampled(mask, (view.px_l0, view.px_l0), frame, False)


def _covered(result: SlideResult, frame: Frame, status: str) -> NDArray[np.bool_]:
    """Where tiles of a status lie."""
    tiles, covered = result.tiles, np.zeros(frame.shape, np.bool_)
    edges = (tiles.minx, tiles.miny, tiles.minx + tiles.width, tiles.miny + tiles.height)
    left, top, right, bottom = (np.maximum(0, np.round(edge / frame.px_l0).astype(int)) for edge in edges)
    for row in np.flatnonzero(tiles.status == status):
        covered[top[row] : bottom[row], left[row] : right[row]] = True
    return covered


def _dashes(points: Sequence[tuple[float, float]], dash: float = 9.0, gap: float = 6.0) -> Iterator[list[Any]]:
    """A line in pieces; every corner lies on a piece."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        count = max(1, round((length - dash) / (dash + gap)))
        for i in range(count + 1):
            begin = i * (length - dash) / count if length > dash else 0.0
            end = min(length, begin + dash)
            place = [(t / length if length else 0.0) for t in (begin, end)]
            yield [(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in place]


def font(size: int) -> Any:
    """Pillow's own font, the same on every machine; it holds plain letters only."""
    return ImageFont.load_default(size)
