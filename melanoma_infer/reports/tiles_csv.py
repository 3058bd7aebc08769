"""tiles.csv: one row per tile, in l0 pixels; the first columns are those of WSInfer."""

from __future__ import annotations

import csv
import io
import math

from melanoma_infer.result import SlideResult

BEFORE = ("minx", "miny", "width", "height")
AFTER = ("depth_mm", "status", "tissue_fraction", "padded_fraction")


def render(result: SlideResult) -> bytes:
    """The tiles as CSV; an unreadable tile has empty cells for the model's outputs."""
    tiles = result.tiles
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*BEFORE, *(f"prob_{name}" for name in tiles.classes), *AFTER])
    for i in range(len(tiles)):
        depth = math.nan if tiles.depth_mm is None else float(tiles.depth_mm[i])
        writer.writerow(
            [tiles.minx[i], tiles.miny[i], tiles.width[i], tiles.height[i]]
            + [_number(float(p), 9) for p in tiles.probabilities[i]]
            + [_number(depth, 6), tiles.status[i]]
            + [_number(float(tiles.tissue_fraction[i]), 6), _number(float(tiles.padded_fraction[i]), 6)]
        )
    return text.getvalue().encode()


def _number(value: float, decimals: int) -> str:
    """A number with so many decimals; an empty cell for NaN."""
    return "" if math.isnan(value) else f"{value:.{decimals}f}"
