"""A picture with its key below it: colour bar with the threshold, scale bar, outlines, hatching and notes.

Where the numbers mean nothing, a line above the picture says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from melanoma_infer.reports import words
from melanoma_infer.reports.drawing import INK, QUIET, WHITE, colours, colours_on_tissue, font, png
from melanoma_infer.reports.frame import Frame, scale_bar
from melanoma_infer.reports.layers import HatchKind, dashes, hatch_lines
from melanoma_infer.result import Region, SlideResult

MARGIN = 24
WIDTH_MIN = 720
"""Room for the colour bar beside the scale bar, and for the longest note."""
BAR_WIDTH, BAR_HEIGHT = 300, 16
HEADLINE_HEIGHT, BARS_HEIGHT, ENTRY_HEIGHT, NOTE_HEIGHT = 44, 100, 30, 26
NOT_DRAWN = "Heat and regions are not drawn."


def with_key(
    picture: Image.Image, result: SlideResult, frame: Frame, kinds: Iterable[HatchKind], *, on_slide: bool
) -> Image.Image:
    """The picture above its key, which explains only what the picture contains."""
    nothing = words.means_nothing(result)
    with_heat = nothing is None or not on_slide
    notes = [*([] if with_heat else [NOT_DRAWN]), *_notes(result, on_slide=on_slide)]
    width = max(picture.width, WIDTH_MIN) + 2 * MARGIN
    entries = list(_entries(result.regions if on_slide and with_heat else (), tuple(kinds), width))
    entries_height = ENTRY_HEIGHT * (entries[-1].line + 1) if entries else 0
    begin = MARGIN + (HEADLINE_HEIGHT if nothing else 0)
    top = picture.height + begin
    height = top + BARS_HEIGHT + entries_height + NOTE_HEIGHT * len(notes) + MARGIN
    page = Image.new("RGB", (width, height), WHITE)
    page.paste(picture, ((width - picture.width) // 2, begin))
    draw, right = ImageDraw.Draw(page), width - MARGIN
    if nothing:
        draw.rectangle((0, 0, width, HEADLINE_HEIGHT), fill=INK)
        draw.text((width / 2, HEADLINE_HEIGHT / 2), nothing, WHITE, font(17), anchor="mm")
    if with_heat:
        _draw_colour_bar(page, top + 40, result.card.region_threshold if result.card else None, on_slide=on_slide)
    mm, length = scale_bar(frame, result.scale.x_um_per_px)
    draw.rectangle((right - length, top + 44, right - 1, top + 51), fill=INK)
    draw.text((right - length / 2, top + 14), f"{mm:g} mm", INK, font(18), anchor="mt")
    for entry in entries:
        _draw_entry(page, top + BARS_HEIGHT + ENTRY_HEIGHT * entry.line, entry)
    for i, note in enumerate(notes):
        draw.text((MARGIN, top + BARS_HEIGHT + entries_height + NOTE_HEIGHT * i), note, QUIET, font(16))
    return page


def without_view() -> bytes:
    """The PNG that replaces a picture when the slide was not read for this result."""
    page = Image.new("RGB", (720, 120), WHITE)
    ImageDraw.Draw(page).text((MARGIN, 44), "No picture: the slide was not read for this result.", INK, font(20))
    return png(page)


@dataclass(frozen=True)
class _Entry:
    """One entry of the key: its line, and its left edge in pixels."""

    kind: HatchKind | Literal["malignant", "benign"]
    text: str
    line: int
    x: int


def _entries(regions: Sequence[Region], kinds: Sequence[HatchKind], page_width: int) -> Iterator[_Entry]:
    """The outlines and hatchings side by side; an entry that would cross the right margin begins a new line."""
    classes = {region.class_ for region in regions}
    drawn: tuple[Literal["malignant", "benign"], ...] = ("malignant", "benign")
    texts = [(name, f"{name} region") for name in drawn if name in classes] + [(kind, kind) for kind in kinds]
    line, x = 0, MARGIN
    for kind, text in texts:
        width = 44 + round(font(16).getlength(text)) + 28
        if x > MARGIN and x + width > page_width - MARGIN:
            line, x = line + 1, MARGIN
        yield _Entry(kind, text, line, x)
        x += width


def _draw_colour_bar(page: Image.Image, y: int, threshold: float | None, *, on_slide: bool) -> None:
    draw = ImageDraw.Draw(page)
    values = np.linspace(0, 1, BAR_WIDTH)
    bar = colours_on_tissue(values) if on_slide else colours(values)
    pixels = np.broadcast_to(np.round(bar).astype(np.uint8), (BAR_HEIGHT, BAR_WIDTH, 3))
    page.paste(Image.fromarray(np.ascontiguousarray(pixels)), (MARGIN, y))
    draw.rectangle((MARGIN, y, MARGIN + BAR_WIDTH - 1, y + BAR_HEIGHT - 1), outline=QUIET)
    draw.text((MARGIN, y - 26), "evidence of a lesion per cell", INK, font(16))
    for value in (0, 1):
        draw.text((MARGIN + value * BAR_WIDTH, y + 24), str(value), INK, font(16), anchor="mt" if value else "lt")
    if threshold is None:
        return
    x = MARGIN + round(threshold * (BAR_WIDTH - 1))
    draw.line((x, y - 5, x, y + BAR_HEIGHT + 4), WHITE, 6)
    draw.line((x, y - 6, x, y + BAR_HEIGHT + 5), INK, 2)
    label = f"region threshold {words.score(threshold)}"
    room = 18 + font(16).getlength(label) / 2  # the label covers neither the 0 nor the 1 at the ends of the bar
    middle = min(max(x, MARGIN + room), MARGIN + BAR_WIDTH - room)
    draw.text((middle, y + 24), label, INK, font(16), anchor="mt")


def _draw_entry(page: Image.Image, y: int, entry: _Entry) -> None:
    draw, x = ImageDraw.Draw(page), entry.x
    if entry.kind == "malignant" or entry.kind == "benign":
        points = [(float(x), y + 9.0), (x + 34.0, y + 9.0)]
        for line in [points] if entry.kind == "malignant" else dashes(points):
            draw.line(line, INK, 3)
    else:
        sample = np.full((18, 34, 3), 255, np.uint8)
        sample[hatch_lines(entry.kind, (18, 34))] = QUIET
        page.paste(Image.fromarray(sample), (x, y))
        draw.rectangle((x, y, x + 33, y + 17), outline=QUIET)
    draw.text((x + 44, y), entry.text, INK, font(16))


def _notes(result: SlideResult, *, on_slide: bool) -> Iterator[str]:
    """What every copy of the picture must say. Plain letters only: Pillow's built-in font has no others."""
    view = result.view
    if view is not None and not (on_slide and words.means_nothing(result)):
        side = f"{view.evidence.cell_l0[0] * result.scale.x_um_per_px / 1000:.2g} mm"
        what = "tile (the model gives no finer map)" if view.evidence.source == "tile" else "cell of the model's map"
        yield f"One square is one {what}: {side}. The scale is 0 to 1 on every slide."
    if result.slide.is_phantom:
        yield "A drawn phantom: it says nothing about tissue or patients."
    yield words.RESEARCH_USE
