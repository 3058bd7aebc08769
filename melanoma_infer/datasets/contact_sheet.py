"""The contact sheet of a data set: a row of tiles for each class, beside its name and counts, with what was drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.annotations import Ring
from melanoma_infer.datasets.labels import SPLITS, LabelledTile, rank
from melanoma_infer.reports.drawing import INK, LINE, QUIET, WHITE, font, png
from melanoma_infer.reports.plain_text import plain
from melanoma_infer.runtime.plural import plural

SIDE, GAP, MARGIN = 168, 8, 28
COLUMNS = 8
NAMES = 236
"""Width of the column with the names of the classes."""
TITLE, CAPTION = 84, 24
OUTLINE = (255, 230, 0)
"""Yellow: no stain has it. A dark line below makes it visible on white."""

Outlines = Callable[[LabelledTile], Sequence[Ring]]


def contact_sheet(
    folder: Path, tiles: Sequence[LabelledTile], card: ModelCard, origin: str, outlines: Outlines
) -> bytes:
    """The sheet as PNG.

    Args:
        folder: of the data set.
        tiles: of the data set.
        card: orders the classes; the highest is in the first row.
        origin: where the data are from; empty if it was not said.
        outlines: what was drawn on a tile, in its pixels.
    """
    classes = sorted({tile.label for tile in tiles}, key=lambda label: rank(label, card), reverse=True)
    width = 2 * MARGIN + NAMES + COLUMNS * (SIDE + GAP) - GAP
    height = TITLE + len(classes) * (SIDE + CAPTION + GAP) + MARGIN
    page = Image.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 20), _title(tiles), INK, font(22))
    key = "Yellow: what was drawn on the slides. " if any(outlines(tile) for tile in tiles) else ""
    draw.text((MARGIN, 52), _fitting(f"{key}{origin}", width - 2 * MARGIN, 15), QUIET, font(15))
    for row, label in enumerate(classes):
        y = TITLE + row * (SIDE + CAPTION + GAP)
        own = [tile for tile in tiles if tile.label == label]
        draw.line((MARGIN, y - GAP, width - MARGIN, y - GAP), LINE)
        _draw_name(draw, y, label, own)
        for column, tile in enumerate(_spread(own)):
            x = MARGIN + NAMES + column * (SIDE + GAP)
            page.paste(_picture(folder / tile.tile, outlines(tile)), (x, y))
            draw.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline=LINE)
            draw.text((x, y + SIDE + 3), _fitting(_caption(tile), SIDE, 13), QUIET, font(13))
    return png(page)


def _title(tiles: Sequence[LabelledTile]) -> str:
    cases = len({tile.case_id for tile in tiles})
    slides = len({tile.slide for tile in tiles if tile.slide})
    parts = [plural(len(tiles), "tile"), *([plural(slides, "slide")] if slides else []), plural(cases, "case")]
    by_split = Counter(tile.split for tile in tiles)
    splits = ", ".join(f"{split} {by_split[split]}" for split in SPLITS if by_split[split])
    return f"{', '.join(parts)}{f':  {splits}' if splits else ''}"


def _draw_name(draw: ImageDraw.ImageDraw, y: int, label: str, tiles: Sequence[LabelledTile]) -> None:
    draw.text((MARGIN, y), _fitting(label, NAMES - GAP, 20), INK, font(20))
    slides = Counter(tile.slide for tile in tiles if tile.slide)
    lines = [plural(len(tiles), "tile"), f"of {plural(len({tile.case_id for tile in tiles}), 'case')}"]
    lines += [f"on {plural(len(slides), 'slide')}"] if slides else []
    by_split = Counter(tile.split for tile in tiles)
    lines += [f"{split}: {by_split[split]}" for split in SPLITS if by_split[split]]
    for i, line in enumerate(lines):
        draw.text((MARGIN, y + 28 + 19 * i), line, QUIET, font(15))


def _caption(tile: LabelledTile) -> str:
    depth = f"{tile.breslow_mm:.2f} mm, " if tile.breslow_mm is not None and tile.surface_in_tile else ""
    return f"{depth}{tile.slide or Path(tile.tile).stem}"


def _spread(tiles: Sequence[LabelledTile]) -> list[LabelledTile]:
    """At most COLUMNS tiles, from the first to the last in equal steps, so that every slide has its share."""
    if len(tiles) <= COLUMNS:
        return list(tiles)
    return [tiles[round(i * (len(tiles) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]


def _picture(path: Path, outlines: Sequence[Ring]) -> Image.Image:
    with Image.open(path) as tile:
        picture = tile.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        to_picture = SIDE / tile.width
    draw = ImageDraw.Draw(picture)
    for colour, line_width in ((INK, 4), (OUTLINE, 2)):
        for ring in outlines:
            points = [(float(x), float(y)) for x, y in ring * to_picture]
            draw.line([*points, points[0]], colour, line_width, joint="curve")
    return picture


def _fitting(text: str, width: int, size: int) -> str:
    """The text, with its end left out where it is wider than that."""
    text = plain(text)
    length = font(size).getlength(text)
    if length <= width:
        return text
    text = text[: round(len(text) * width / length) + 4]
    while text and font(size).getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
