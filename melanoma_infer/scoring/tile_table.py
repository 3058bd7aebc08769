"""Tile results → the tile table, one row a tile. Their order changes no bit of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.records import TileResult, TileTable


def tile_table(results: Iterable[TileResult], bundle: Bundle) -> TileTable:
    """The table of the tiles seen so far, with the graph's own probabilities: those of an unknown patient.

    Args:
        results: in any order; a second result of a tile replaces the first.
        bundle: says which outputs the model has, and their shapes.
    """
    by_index = {result.tile.index: result for result in results}
    rows = [by_index[index] for index in sorted(by_index)]
    rects = [row.tile.rect_l0 for row in rows]
    probabilities = _column(rows, "probabilities", bundle)
    assert probabilities is not None  # every model has probabilities
    return TileTable(
        classes=bundle.card.classes,
        minx=np.array([rect.x for rect in rects], np.int64),
        miny=np.array([rect.y for rect in rects], np.int64),
        width=np.array([rect.width for rect in rects], np.int64),
        height=np.array([rect.height for rect in rects], np.int64),
        probabilities=probabilities.astype(np.float64),
        depth_mm=_column(rows, "depth_mm", bundle),
        status=np.array([row.status for row in rows], np.str_),
        cause=np.array([row.cause for row in rows], np.str_),
        tissue_fraction=np.array([row.tile.tissue_fraction for row in rows], np.float64),
        padded_fraction=np.array([row.padded_fraction for row in rows], np.float64),
        features=_column(rows, "features", bundle),
        attention=_column(rows, "attention", bundle),
        cam=_column(rows, "cam", bundle),
    )


def _column(rows: list[TileResult], name: str, bundle: Bundle) -> NDArray[Any] | None:
    """One output of all rows as float32, NaN where a tile is unreadable; None if the model does not have it."""
    golden = bundle.golden.outputs.get(name)
    if golden is None:
        return None
    column = np.full((len(rows), *golden.shape[1:]), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row.outputs is not None:
            column[i] = row.outputs[name]
    return column
