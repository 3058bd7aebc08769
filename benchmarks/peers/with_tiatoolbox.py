"""Runs TIAToolbox's PatchPredictor with the given network, in its own virtual environment; writes WSInfer's columns."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch
import zarr
from tiatoolbox.models.engine.patch_predictor import PatchPredictor
from tiatoolbox.models.models_abc import ModelABC
from tiatoolbox.wsicore.wsireader import WSIReader


class Network(ModelABC):
    """The TorchScript network with its normalisation: uint8 images (N, H, W, 3) in, probabilities out."""

    def __init__(self, path: Path, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.net = torch.jit.load(str(path))
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities (N, K)."""
        scaled = images.permute(0, 3, 1, 2).float() / 255
        return self.net((scaled - self.mean) / self.std).softmax(1)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, device: str) -> np.ndarray:
        """Probabilities of a batch, in the interface that the predictor expects."""
        with torch.inference_mode():
            return model(batch_data.to(device)).cpu().numpy()


def main(slide: Path, model: Path, table: Path, batch: int) -> None:
    """Predict the slide's patches and write the table."""
    config = json.loads((model / "config.json").read_text())
    normalise = config["transform"][2]["arguments"]
    side, um_per_px = config["patch_size_pixels"], config["spacing_um_px"]
    predictor = PatchPredictor(
        model=Network(model / "model.pt", normalise["mean"], normalise["std"]), batch_size=batch, num_workers=1
    )
    output = predictor.run(
        images=[slide],
        patch_mode=False,
        patch_input_shape=(side, side),
        stride_shape=(side, side),
        input_resolutions=[{"units": "mpp", "resolution": um_per_px}],
        device="cpu",
        save_dir=table.parent / "zarr",
        overwrite=True,
        output_type="zarr",
        return_probabilities=True,
    )
    found = zarr.open(str(next(iter(output.values()))), mode="r")
    corners = np.rint(np.asarray(found["coordinates"]) * um_per_px / WSIReader.open(slide).info.mpp[0]).astype(int)
    write_table(table, corners, np.asarray(found["probabilities"]), config["class_names"])


def write_table(path: Path, corners: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> None:
    """Write the tiles with WSInfer's columns; corners (N, 4) are x0, y0, x1, y1 in level-0 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["minx", "miny", "width", "height", *(f"prob_{name}" for name in classes)])
        for (left, top, right, bottom), row in zip(corners, probabilities, strict=True):
            writer.writerow([left, top, right - left, bottom - top, *row])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
