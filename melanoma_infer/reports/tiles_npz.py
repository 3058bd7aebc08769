"""tiles.npz: the arrays of the tiles (features, attention, cam, depth), from which a result can be scored again."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from melanoma_infer.records import TileTable
from melanoma_infer.result import SlideResult

OPTIONAL = ("depth_mm", "features", "attention", "cam")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time stamp in the archive, fixed so that the same result gives the same bytes."""


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
    archive_bytes = io.BytesIO()
    with zipfile.ZipFile(archive_bytes, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", EPOCH), entry.getvalue(), zipfile.ZIP_DEFLATED)
    return archive_bytes.getvalue()


def read(path: Path) -> TileTable | None:
    """The tiles of a finished slide; None if the file is missing or was not written by this version."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
            classes = tuple(str(name) for name in columns.pop("classes"))
            return TileTable(classes=classes, **{**dict.fromkeys(OPTIONAL), **columns})
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
