"""A slide result set by hand, so that every colour, length and word of its pictures can be foretold.

The slide has 4000 × 3000 px of 0.5 µm; tissue lies from (800, 400) to (3200, 2800). A tile is 800 px, a cell 400 px.
Tile (1600, 1600) could not be read, tile (2400, 0) was not evaluated, the lowest row reaches 200 px beyond the slide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.records import EvidenceMap, GalleryTile, SlideView, TileTable
from melanoma_infer.result import Region, SlideResult
from melanoma_infer.scoring.gallery import choose

PX_L0, TILE, CELL = 16, 800, 400
WIDTH, HEIGHT = 4000, 3000
UNREADABLE, MISSING = (1600, 1600), (2400, 0)
PLACES = [(x, y) for y in range(0, 2801, TILE) for x in range(800, 3200, TILE) if (x, y) != MISSING]
RING = [[800.0, 800.0], [2000.0, 800.0], [2000.0, 1600.0], [800.0, 1600.0], [800.0, 800.0]]


def hand_made_card(**changes: Any) -> ModelCard:
    """A trained model of tissue with every optional part."""
    card = {
        "name": "hand-made",
        "classes": ["healthy", "naevus", "melanoma", "melanoma_spread"],
        "malignant": ["melanoma", "melanoma_spread"],
        "tile_px": 64,
        "tile_um": TILE * 0.5,
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "resize": "pillow-bilinear",
        "finding": "melanoma",
        "training_data": "Nothing: it was set by hand.",
        "intended_use": "To test reports.",
        "limits": "It knows two colours.",
        "outputs": ["attention", "cam", "depth_mm"],
        "cam_scale": 0.5,
        "region_threshold": 0.4,
        "threshold": {"value": 0.62, "low": 0.55, "high": 0.7, "how": "by hand"},
        "outcome": {"name": "spread recorded", "classes": ["melanoma_spread"]},
        "outcome_thresholds": {"low": 0.3, "high": 0.6, "how": "by hand"},
    }
    return ModelCard.model_validate(card | changes)


def hand_made_tiles(card: ModelCard, maps: bool = True) -> TileTable:
    """The tiles; malignant score of row i is 0.9 − 0.05 i."""
    n = len(PLACES)
    status = np.array(["unreadable" if place == UNREADABLE else "ok" for place in PLACES])
    score = 0.9 - 0.05 * np.arange(n)
    probabilities = np.stack([(1 - score) / 2, (1 - score) / 2, score / 2, score / 2], axis=1)
    probabilities[status != "ok"] = np.nan
    xs, ys = np.array(PLACES, np.int64).T
    cam = np.linspace(-0.5, 0.5, n * 3 * 4, dtype=np.float32).reshape(n, 3, 2, 2)
    attention = np.linspace(0, 1, n * 4, dtype=np.float32).reshape(n, 2, 2)
    return TileTable(
        classes=card.classes,
        minx=xs,
        miny=ys,
        width=np.full(n, TILE, np.int64),
        height=np.full(n, TILE, np.int64),
        probabilities=probabilities,
        depth_mm=np.full(n, 0.8),
        status=status,
        cause=np.where(status == "ok", "", "read-failed"),
        tissue_fraction=np.ones(n),
        padded_fraction=np.where(ys + TILE > HEIGHT, 0.25, 0.0),
        features=None,
        attention=attention if maps else None,
        cam=cam if maps else None,
    )


def hand_made_view() -> SlideView:
    """Tissue is pink on white; evidence of a cell is its column / 10 where it was evaluated."""
    shape = (-(-HEIGHT // PX_L0), WIDTH // PX_L0)
    tissue = np.zeros(shape, np.bool_)
    tissue[400 // PX_L0 : 2800 // PX_L0, 800 // PX_L0 : 3200 // PX_L0] = True
    thumbnail = np.full((*shape, 3), 255, np.uint8)
    thumbnail[tissue] = (230, 180, 205)
    nothing = np.zeros(shape, np.bool_)
    return SlideView(
        thumbnail, float(PX_L0), tissue, nothing, nothing.copy(), EvidenceMap(_evidence(), (CELL, CELL), "cam")
    )


def _evidence() -> NDArray[np.float32]:
    values = np.full((-(-HEIGHT // CELL), WIDTH // CELL), np.nan, np.float32)
    for x, y in PLACES:
        if (x, y) != UNREADABLE:
            for column in (x // CELL, x // CELL + 1):
                values[y // CELL : y // CELL + 2, column] = column / 10
    return values


def hand_made_result(
    *, card: ModelCard | None = None, view: SlideView | None = None, maps: bool = True, **changes: Any
) -> SlideResult:
    """The result, with pictures and a gallery; `changes` by the names of result.json."""
    card = card or hand_made_card()
    tiles = hand_made_tiles(card, maps)
    ramp = np.linspace(40, 220, 64).astype(np.uint8)
    pixels = np.dstack([np.broadcast_to(ramp, (64, 64))] * 3)
    gallery = tuple(GalleryTile(choice.row, choice.role, pixels) for choice in choose(tiles, card))
    result = SlideResult.model_validate(_fields() | changes)
    return result.carrying(tiles, view or hand_made_view(), gallery, card=card)


def hand_made_region(**changes: Any) -> Region:
    """A malignant region of 0.24 mm²."""
    region = {
        "id": "R1",
        "class": "malignant",
        "area_mm2": 0.24,
        "diameter_mm": 0.7211,
        "score": 0.45,
        "malignant_share": 0.9,
        "outline": RING,
        "tissue_section": 1,
    }
    return Region.model_validate(region | changes)


def _fields() -> dict[str, Any]:
    return {
        "id": "slide-7",
        "tool": {"name": "mminfer", "version": "0.1.0"},
        "slide": {
            "reader": "openslide 4.0.1", "vendor": "aperio", "width_px": WIDTH, "height_px": HEIGHT, "levels": 1,
            "objective_power": 20.0, "digest": "5" * 64, "size_bytes": 1000, "is_phantom": False,
        },
        "scale": {
            "x_um_per_px": 0.5, "y_um_per_px": 0.5, "source": "slide",
            "slide_x_um_per_px": 0.5, "slide_y_um_per_px": 0.5,
        },
        "geometry": {
            "tile_um": TILE * 0.5, "stride_um": TILE * 0.5, "tile_px": 64, "level": 0, "resize": "pillow-bilinear",
            "block_px": 1, "matches_card": True, "tissue_source": "found", "aggregator": "top-area-mean",
        },
        "patient": {
            "values": {"age": "55_to_69", "sex": "unknown"}, "ulceration": "unknown", "malignant_score_without": 0.7345,
        },
        "stain": None,
        "specimen": None,
        "bundle": {
            "name": "hand", "version": "1", "digest": "b" * 64, "domain": "tissue", "trained": True,
            "finding": "melanoma", "threshold": 0.62, "threshold_low": 0.55, "threshold_high": 0.7,
        },
        "numerics": {"engine": "openvino", "version": "2026.1", "precision": "fp32", "device": "cpu"},
        "tiles": {"ok": 10, "unreadable": 1, "padded": 3, "not_evaluated": 1},
        "evaluation": {
            "engine_band": 0.0, "non_finite": 0, "padded_fraction": 0.05, "is_brightfield": True,
            "luminance_p95": 240.0,
        },
        "tissue_mm2": 1.445,
        "ink_mm2": 0.0,
        "evaluable_fraction": 0.9499,
        "malignant_score": 0.8349,
        "verdict": "suspected",
        "outcome": "between-thresholds",
        "outcome_name": "spread recorded",
        "outcome_score": 0.5,
        "reasons": [],
        "thickness": {"state": "estimated", "mm": 1.005, "low_mm": 0.8, "high_mm": 1.3, "reason": ""},
        "regions": [hand_made_region().model_dump(by_alias=True)],
        "regions_note": "Drawn from the model's maps, 200 µm a cell.",
        "warnings": [],
        "run": {
            "started": "2026-11-29T06:23:11Z", "finished": "2026-11-29T06:23:15Z",
            "folder": "slide-7-55555555-5e5e5e5e", "key": "5e" * 32, "timings_ms": {"open": 12.0, "infer": 3456.0},
        },
    }  # fmt: skip
