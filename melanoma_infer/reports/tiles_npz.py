"""tiles.npz: the arrays of the tiles (features, attention, cam, depth), from which a result can be scored again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from melanoma_infer.records import TileTable
from melanoma_infer.reports.npz import UNREADABLE, packed, unpacked
from melanoma_infer.result import SlideResult

OPTIONAL = ("depth_mm", "features", "attention", "cam")


def render(result: SlideResult) -> bytes:
    """The arrays as an .npz without pickles. The first axis is the tile, in the order of tiles.csv."""
    tiles = result.tiles
    arrays = {
        "minx": tiles.minx,
        "miny": tiles.miny,
        "width": tiles.width,
        "height": tiles.height,
        "probabilities": tiles.probabilities,
        "status": tiles.status,
        "cause": tiles.cause,
        "tissue_fraction": tiles.tissue_fraction,
        "padded_fraction": tiles.padded_fraction,
        "classes": np.array(tiles.classes, np.str_),
    }
    arrays |= {name: getattr(tiles, name) for name in OPTIONAL if getattr(tiles, name) is not None}
    return packed(arrays)


def read(path: Path) -> TileTable | None:
    """The tiles of a finished slide; None if the file is missing or was not written by this version."""
    try:
        columns: dict[str, Any] = dict(unpacked(path))
        classes = tuple(str(name) for name in columns.pop("classes"))
        return TileTable(classes=classes, **{**dict.fromkeys(OPTIONAL), **columns})
    except UNREADABLE:
        return None
