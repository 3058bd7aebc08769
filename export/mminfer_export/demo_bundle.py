"""The demo bundle: a narrow network with random weights, rescaled so that its outputs can tell right from wrong.

Nothing in it is trained, and its card says so. Tiles are drawn, calibrated upon, and chosen by fixed seeds:
``python -m mminfer_export.demo_bundle OUT`` writes the bundle again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from melanoma_infer.card import Aggregator, ModelCard, NetworkShape, Outcome, PatientField, Threshold
from melanoma_infer.model.melanoma_net import MelanomaNet
from mminfer_export.random_net import random_net
from mminfer_export.write_net import write_net

TILES_SEED, NET_SEED = 23, 30
TILES = 32

BACKGROUND = (243, 241, 244)
DERMIS = (226, 170, 198)
EPIDERMIS = (168, 112, 172)
NEST = (104, 66, 58)


def demo_card() -> ModelCard:
    """The card of the demo bundle, without `cam_scale`, which is measured."""
    return ModelCard(
        name="demo",
        version="1",
        finding="melanoma",
        domain="phantom",
        trained=False,
        intended_use="To show and to test the toolkit. Its numbers mean nothing for any tissue.",
        training_data="None: the weights are random. Ranges were set on 32 drawn tiles.",
        limits="It has not been trained. Every verdict is indeterminate.",
        classes=(
            "no_lesion",
            "benign_melanocytic",
            "melanoma_no_metastasis_recorded",
            "melanoma_metastasis_recorded",
        ),
        malignant=("melanoma_no_metastasis_recorded", "melanoma_metastasis_recorded"),
        outcome=Outcome(name="metastasis recorded", classes=("melanoma_metastasis_recorded",)),
        tile_px=512,
        tile_um=3000,
        mean=(0.84, 0.72, 0.78),
        std=(0.15, 0.21, 0.18),
        resize="reduce-bilinear",
        stain="H&E",
        specimen="primary",
        outputs=("depth_mm", "attention", "cam", "features"),
        aggregator=Aggregator(kind="top-area-mean", area_mm2=9.0),
        threshold=Threshold(value=0.5, low=0.45, high=0.55, how="not set on data: the model is untrained"),
        region_threshold=0.5,
        patient_fields=(
            PatientField(
                name="age", values=("under_40", "40_to_54", "55_to_69", "70_and_over"), edges=(40.0, 55.0, 70.0)
            ),
            PatientField(name="sex", values=("female", "male")),
            PatientField(name="site", values=("head_neck", "trunk", "upper_limb", "lower_limb", "acral", "mucosal")),
            PatientField(name="ulceration", values=("no", "yes")),
        ),
        network=NetworkShape(width=8),
    )


def draw_tile(rng: np.random.Generator, side_px: int) -> NDArray[np.uint8]:
    """A drawn tile (side_px, side_px, 3): background, dermis under a wavy epidermis, none to many dark nests.

    Flat colours with soft edges, so that golden tiles compress well. It resembles skin as a cartoon does.
    """
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    stain = rng.uniform(0.7, 1.15)
    surface = rng.uniform(-0.3, 0.8) + 0.08 * np.sin(2 * np.pi * (x * rng.uniform(0.5, 2.5) + rng.random()))
    ridges = 0.02 * np.sin(2 * np.pi * (x * rng.uniform(6, 14) + rng.random()))
    image = np.broadcast_to(np.array(BACKGROUND, np.float64), (side_px, side_px, 3))
    image = _painted(image, _shade(EPIDERMIS, stain), y - surface, side_px)
    image = _painted(image, _shade(DERMIS, stain), y - surface - rng.uniform(0.03, 0.10) - ridges, side_px)
    for _ in range(int(rng.integers(0, 40) * rng.random())):
        centre_x, depth = rng.random(), rng.uniform(0.0, 0.6)
        radius = rng.uniform(0.01, 0.08)
        distance = np.hypot(x - centre_x, (y - surface - depth) * rng.uniform(0.7, 1.5))
        image = _painted(image, _shade(NEST, rng.uniform(0.8, 1.5)), radius - distance, side_px)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _shade(colour: tuple[float, float, float], strength: float) -> tuple[float, ...]:
    return tuple(strength * channel for channel in colour)


def _painted(
    image: NDArray[np.float64], colour: tuple[float, ...], inside: NDArray[np.float64], side_px: int
) -> NDArray[np.float64]:
    """The image with a colour where `inside` (in tile sides) is positive, over an edge of two pixels."""
    cover = np.clip(inside * side_px / 2 + 0.5, 0, 1)[..., None]
    return image * (1 - cover) + np.array(colour) * cover


def drawn_tiles() -> NDArray[np.uint8]:
    """The tiles that the demo bundle is set on, (32, 512, 512, 3)."""
    rng = np.random.default_rng(TILES_SEED)
    return np.stack([draw_tile(rng, demo_card().tile_px) for _ in range(TILES)])


def demo_net(card: ModelCard, tiles: NDArray[np.uint8]) -> MelanomaNet:
    """The network with random weights whose outputs span their ranges on these tiles."""
    return random_net(card, torch.from_numpy(tiles), NET_SEED)


def write_demo_bundle(folder: Path) -> Path:
    """Return `folder`, which now holds the demo bundle.

    In fp32, fp16 and int8. The weights do not depend on the machine beyond the last bits of its arithmetic; the parity
    is this machine's.

    Raises:
        OutputError: the folder exists, or cannot be written.
        ParityError: a precision exceeds its tolerance.
    """
    card, tiles = demo_card(), drawn_tiles()
    return write_net(folder, demo_net(card, tiles), tiles, card.threshold)


def main() -> None:
    """Write the demo bundle to the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write the demo bundle.")
    parser.add_argument("out", type=Path, help="the folder to make, such as demo.mminfer")
    write_demo_bundle(parser.parse_args().out)


if __name__ == "__main__":
    main()
