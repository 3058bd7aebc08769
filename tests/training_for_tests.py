"""A small data set that a small network can learn: skin below a surface, dark discs at a known depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.table import LabelledSlide, LabelledTile, write_dataset

TILE_PX = 128
NO, SPARED, SPREAD = "no_lesion", "melanoma_no_metastasis", "melanoma_metastasis"

CARD = """\
name = "small"
classes = ["no_lesion", "melanoma_no_metastasis", "melanoma_metastasis"]
malignant = ["melanoma_no_metastasis", "melanoma_metastasis"]
tile_px = 128
tile_um = 3000.0
mean = [0.84, 0.72, 0.78]
std = [0.15, 0.21, 0.18]
resize = "reduce-bilinear"
intended_use = "To test the training."
outcome = { name = "metastasis recorded", classes = ["melanoma_metastasis"] }
"""
NETWORK = """\
[network]
width = 4
[[patient_fields]]
name = "age"
values = ["under_50", "50_and_over"]
edges = [50.0]
[[patient_fields]]
name = "sex"
values = ["female", "male"]
"""
"""`training_card` as a user writes it, without and with what a training needs."""


def training_card(**changes: Any) -> ModelCard:
    """Three classes, two patient fields, tiles of 128 px and 3 mm, and a narrow network."""
    card: dict[str, Any] = {
        "name": "small",
        "classes": [NO, SPARED, SPREAD],
        "malignant": [SPARED, SPREAD],
        "outcome": {"name": "metastasis recorded", "classes": [SPREAD]},
        "tile_px": TILE_PX,
        "tile_um": 3000.0,
        "mean": (0.84, 0.72, 0.78),
        "std": (0.15, 0.21, 0.18),
        "resize": "reduce-bilinear",
        "intended_use": "To test the training.",
        "outputs": ["depth_mm", "attention", "cam", "features"],
        "patient_fields": [
            {"name": "age", "values": ["under_50", "50_and_over"], "edges": [50.0]},
            {"name": "sex", "values": ["female", "male"]},
        ],
        "network": {"width": 4},
    }
    return ModelCard.model_validate(card | changes)


def drawn(rng: np.random.Generator, depth_mm: float | None) -> NDArray[np.uint8]:
    """A tile: background over skin, with a dark disc that reaches so deep, or none."""
    y, x = np.mgrid[0:TILE_PX, 0:TILE_PX]
    surface = rng.uniform(0.1, 0.3) * TILE_PX
    image = np.where((y > surface)[..., None], (226.0, 170.0, 198.0), (243.0, 241.0, 244.0))
    if depth_mm is not None:
        deep = depth_mm / 3 * TILE_PX
        radius = max(deep / 2, 4)
        inside = np.hypot(x - rng.uniform(0.3, 0.7) * TILE_PX, y - (surface + deep - radius)) < radius
        image[inside & (y > surface)] = (104, 66, 90)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def write_small_dataset(
    folder: Path, *, cases: int = 24, splits: bool = True, seed: int = 3, slides: tuple[LabelledSlide, ...] = (),
    domain: str = "phantom", card: ModelCard | None = None,
) -> Path:  # fmt: skip
    """A data set of two tiles a case, half of the cases malignant; outcome and age go together."""
    rng = np.random.default_rng(seed)
    (folder / "tiles").mkdir(parents=True, exist_ok=True)
    tiles = []
    for case in range(cases):
        malignant, spread = case % 2 == 1, case % 4 == 3
        split = ("train", "train", "train", "train", "validation", "test")[case // 2 % 6] if splits else None
        for part in range(2):
            depth = float(np.round(rng.uniform(0.3, 1.8), 2)) if malignant else None
            name = f"tiles/case{case:02d}-{part}.png"
            Image.fromarray(drawn(rng, depth)).save(folder / name)
            tiles.append(
                LabelledTile(
                    tile=name,
                    slide="",
                    case_id=f"case{case:02d}",
                    x_l0=None,
                    y_l0=None,
                    um_per_px=3000 / TILE_PX,
                    label=(SPREAD if spread else SPARED) if malignant else NO,
                    breslow_mm=depth,
                    surface_in_tile=True if malignant else None,
                    values={"age": "70" if spread else "30", "sex": "female" if case % 3 else ""},
                    outcome=None,
                    split=split,
                )
            )
    write_dataset(
        folder, tiles, card or training_card(), domain=domain, origin="Drawn discs under a line.", slides=slides
    )
    return folder
