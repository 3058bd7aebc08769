"""Data sets made for tests: a card with every optional part, and a folder whose every cell is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from melanoma_infer.card import ModelCard

HEADER = "tile,slide,case_id,x_l0,y_l0,um_per_px,class,breslow_mm,surface_in_tile,age,sex,outcome,split,mask"
ROWS = (
    "tiles/s1/a.png,s1,P1,1024,-512,80.0,melanoma,1.031,yes,63,female,yes,train,",
    "tiles/s1/b.png,s1,P1,,,82.0,malignant,,,63,female,,train,",
    "tiles/c.png,,P2,,,80.0,normal,,,,male,no,validation,",
)
SLIDES = "slide,path,case_id,class,split\ns1,s1.svs,P1,malignant,train\n"


def lesion_card(**changes: Any) -> ModelCard:
    """A card for tiles of 16 px at 80 µm/px, 1.28 mm wide: four classes, an outcome, two patient fields."""
    card: dict[str, Any] = {
        "name": "lesions",
        "classes": ["normal", "naevus", "melanoma", "melanoma_in_situ"],
        "malignant": ["melanoma", "melanoma_in_situ"],
        "tile_px": 16,
        "um_per_px": 80.0,
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "resize": "reduce-bilinear",
        "outputs": ["features"],
        "outcome": {"name": "spread recorded", "classes": ["melanoma"]},
        "patient_fields": [
            {"name": "age", "values": ["young", "old"], "edges": [50]},
            {"name": "sex", "values": ["female", "male"]},
        ],
    }
    return ModelCard.model_validate(card | changes)


def write_picture(path: Path, *, side: int = 16, mode: str = "RGB") -> Path:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (side, side)).save(path)
    return path


def write_by_hand(folder: Path, *rows: str, slides: str | None = None, header: str = HEADER, **facts: Any) -> Path:
    """A data set written without the code under test; its pictures are those that ROWS name."""
    for row in ROWS:
        write_picture(folder / row.split(",")[0])
    (folder / "tiles.csv").write_text("\n".join((header, *rows, "")), encoding="utf-8")
    if slides is not None:
        (folder / "slides.csv").write_text(slides, encoding="utf-8")
        (folder / "s1.svs").write_bytes(b"")
    known = {
        "format": 1, "domain": "tissue", "origin": "Drawn by hand.", "tile_px": 16, "um_per_px": 80.0, "counts": {},
        "version": "0",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(known | facts), encoding="utf-8")
    return folder


def square(left: float, top: float, side: float, height: float | None = None) -> list[list[float]]:
    """A closed ring of GeoJSON round a rectangle."""
    right, bottom = left + side, top + (side if height is None else height)
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(geometry: dict[str, Any], classed: str | None, **properties: Any) -> dict[str, Any]:
    """A feature as QuPath 0.5 exports it."""
    known: dict[str, Any] = {"objectType": "annotation"}
    if classed is not None:
        known["classification"] = {"name": classed, "color": [200, 0, 0]}
    return {
        "type": "Feature",
        "id": "6f6f2f0e-0c53-4d83-9a3c-0d6a8a3a7f5b",
        "geometry": geometry,
        "properties": known | properties,
    }


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    """A polygon: its border, then its holes."""
    return {"type": "Polygon", "coordinates": list(rings)}


def breslow(*points: list[float]) -> dict[str, Any]:
    """The line of a thickness."""
    return feature({"type": "LineString", "coordinates": list(points)}, None, name="Breslow")


def write_geojson(path: Path, *features: dict[str, Any]) -> Path:
    """A file as QuPath exports it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path
