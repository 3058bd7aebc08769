"""regions.geojson: the regions for QuPath 0.4 and newer, in its frame (see tiles_geojson)."""

from __future__ import annotations

import uuid

from melanoma_infer.reports.tiles_geojson import NAMESPACE, collection, viewer_origin
from melanoma_infer.result import SlideResult

COLOURS = {"malignant": [200, 40, 40], "benign": [60, 110, 180]}


def render(result: SlideResult) -> bytes:
    """The regions as a GeoJSON feature collection, one feature per line."""
    left, top = viewer_origin(result)
    return collection(
        {
            "type": "Feature",
            "id": str(uuid.uuid5(NAMESPACE, f"{result.slide.digest}/{result.bundle.digest}/{region.outline}")),
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[round(x - left, 2), round(y - top, 2)] for x, y in ring]
                    for ring in (region.outline, *region.holes)
                ],
            },
            "properties": {
                "objectType": "annotation",
                "name": region.id,
                "classification": {"name": region.class_, "color": COLOURS[region.class_]},
                "measurements": {
                    "area_mm2": region.area_mm2,
                    "diameter_mm": region.diameter_mm,
                    "score": region.score,
                    "malignant_share": region.malignant_share,
                    "tissue_section": region.tissue_section,
                },
            },
        }
        for region in result.regions
    )
