"""A horizontal bar chart as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from melanoma_infer.reports.drawing import INK, WHITE, font, png

WIDTH_PX, ROW_PX, MARGIN_PX = 960, 34, 24
NAME_PX, VALUE_PX = 300, 150
BAR, PALE_BAR = (52, 101, 164), (170, 190, 214)


@dataclass(frozen=True)
class Bar:
    """A bar: its name, its length, the text at its end, and whether it is drawn in full colour."""

    name: str
    length: float
    value: str
    told: bool = True


def chart(title: str, bars: Sequence[Bar], note: str = "") -> bytes:
    """The chart as PNG bytes, scaled to the longest bar; bars that are not `told` are pale."""
    picture = Image.new("RGB", (WIDTH_PX, 2 * MARGIN_PX + ROW_PX * (len(bars) + 2)), WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN_PX, MARGIN_PX), title, INK, font(20))
    longest = max((bar.length for bar in bars), default=0.0) or 1.0
    room = WIDTH_PX - 2 * MARGIN_PX - NAME_PX - VALUE_PX
    for row, bar in enumerate(bars, start=1):
        top = MARGIN_PX + row * ROW_PX + 8
        left = MARGIN_PX + NAME_PX
        right = left + max(1, round(room * bar.length / longest))
        draw.text((MARGIN_PX, top), bar.name, INK, font(16))
        draw.rectangle((left, top, right, top + ROW_PX - 14), BAR if bar.told else PALE_BAR)
        draw.text((right + 8, top), bar.value, INK, font(16))
    draw.text((MARGIN_PX, MARGIN_PX + (len(bars) + 1) * ROW_PX + 8), note, INK, font(14))
    return png(picture)
