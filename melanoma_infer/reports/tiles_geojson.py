"""tiles.geojson: the tiles for QuPath 0.4 and newer: UUIDs as ids, measurements as a map, NaN as text.

QuPath shows the scanned part of a slide alone, so its frame begins at the bounds that the file names.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable

from melanoma_infer.result import SlideResult

NAMESPACE = uuid.UUID("6f6f2f0e-0c53-5d83-9a3c-0d6a8a3a7f5b")
"""Ids are derived from the slide's digest and the tile's position, so the same slide gives the same file."""


def render(result: SlideResult) -> bytes:
    """The tiles as a GeoJSON feature collection, one feature per line."""
    return collection(_feature(result, row) for row in range(len(result.tiles)))


def collection(features: Iterable[dict[str, object]]) -> bytes:
    """A GeoJSON feature collection as UTF-8, one feature per line."""
    lines = ",\n".join(json.dumps(feature, ensure_ascii=False, allow_nan=False) for feature in features)
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'.encode()


def viewer_origin(result: SlideResult) -> tuple[int, int]:
    """Where QuPath's frame begins, in l0 pixels."""
    bounds = result.slide.bounds
    return (bounds.x, bounds.y) if bounds is not None else (0, 0)


def _feature(result: SlideResult, row: int) -> dict[str, object]:
    tiles = result.tiles
    values = {f"prob_{name}": float(p) for name, p in zip(tiles.classes, tiles.probabilities[row], strict=True)}
    if tiles.depth_mm is not None:
        values["depth_mm"] = float(tiles.depth_mm[row])
    values["tissue_fraction"] = float(tiles.tissue_fraction[row])
    values["padded_fraction"] = float(tiles.padded_fraction[row])
    x, y = int(tiles.minx[row]), int(tiles.miny[row])
    right, bottom = x + int(tiles.width[row]), y + int(tiles.height[row])
    identity = f"{result.slide.digest}/{x}/{y}/{right}/{bottom}"
    origin = viewer_origin(result)
    x, y, right, bottom = x - origin[0], y - origin[1], right - origin[0], bottom - origin[1]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(NAMESPACE, identity)),
        "geometry": {"type": "Polygon", "coordinates": [[[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]]},
        "properties": {
            "objectType": "tile",
            "name": str(tiles.status[row]),
            "measurements": {name: "NaN" if math.isnan(value) else value for name, value in values.items()},
        },
    }
