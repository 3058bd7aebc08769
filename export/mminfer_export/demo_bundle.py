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
from safetensors.numpy import save
from torch import Tensor

from melanoma_infer.bundle import Bundle
from melanoma_infer.card import Aggregator, Cut, ModelCard, NetworkShape, Outcome, PatientField, Precision
from melanoma_infer.head import Head
from melanoma_infer.model.melanoma_net import MelanomaNet, head_tensors
from mminfer_export.calibrated_net import (
    balance_first_layer,
    calibrate_normalisation,
    chunks,
    malignant_score,
    measured_cam_scale,
    reference_outputs,
    spanning_golden,
    spread_attention,
    spread_depth,
)
from mminfer_export.parity import measured_parity
from mminfer_export.seal import seal_bundle
from mminfer_export.to_onnx import to_onnx

SEED = 23
TILES = 32
RESIDUAL_GAIN = 0.3
"""Of each residual branch: at 1 the random trunk amplifies rounding (engines were seen to differ by 8e-4 in p)."""
DEPTH_MM = (0.4, 4.0)
"""Depth at the 5th and 95th percentile of the drawn tiles."""
MALIGNANT_SPAN = (0.04, 0.96)
"""The malignant probability of the drawn tiles reaches beyond both."""

GLASS = (243, 241, 244)
DERMIS = (226, 170, 198)
EPIDERMIS = (168, 112, 172)
NEST = (104, 66, 58)


def demo_card() -> ModelCard:
    """The card of the demo bundle, without `cam_scale`, which is measured."""
    return ModelCard(
        name="demo",
        version="1",
        domain="phantom",
        trained=False,
        intended_use="To show and to test the toolkit. Its numbers mean nothing for any tissue.",
        training_data="None: the weights are random. Ranges were set on 32 drawn tiles.",
        limits="It has learnt nothing. Every verdict is indeterminate.",
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
        aggregator=Aggregator(kind="hottest-area", area_mm2=9.0),
        cut=Cut(value=0.5, low=0.45, high=0.55, how="not set on data: the model is untrained"),
        region_cut=0.5,
        patient_fields=(
            PatientField(
                name="age", values=("under_40", "40_to_54", "55_to_69", "70_and_over"), edges=(40.0, 55.0, 70.0)
            ),
            PatientField(name="sex", values=("female", "male")),
            PatientField(name="site", values=("head_neck", "trunk", "upper_limb", "lower_limb", "acral", "mucosal")),
            PatientField(name="ulceration", values=("no", "yes")),
        ),
        network=NetworkShape(width=4),
    )


def draw_tile(rng: np.random.Generator, side_px: int) -> NDArray[np.uint8]:
    """A drawn tile (side_px, side_px, 3): glass, dermis under a wavy epidermis, and between none and many dark nests.

    Flat colours with soft edges, so that golden tiles compress well. It resembles skin as a cartoon does.
    """
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    stain = rng.uniform(0.7, 1.15)
    surface = rng.uniform(-0.3, 0.8) + 0.08 * np.sin(2 * np.pi * (x * rng.uniform(0.5, 2.5) + rng.random()))
    ridges = 0.02 * np.sin(2 * np.pi * (x * rng.uniform(6, 14) + rng.random()))
    image = np.broadcast_to(np.array(GLASS, np.float64), (side_px, side_px, 3))
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
    rng = np.random.default_rng(SEED)
    return np.stack([draw_tile(rng, demo_card().tile_px) for _ in range(TILES)])


def demo_net(card: ModelCard, tiles: NDArray[np.uint8]) -> MelanomaNet:
    """The network with random weights, rescaled so that its outputs span their ranges on these tiles."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = MelanomaNet.from_card(card)
    # In float64: the attention's and the depth's inverse would lose what float32 has already rounded to 0 or 1.
    net.double()
    with torch.no_grad():
        images = net.normalised(torch.from_numpy(tiles))
        calibrate_normalisation(net, images, RESIDUAL_GAIN)
        x = torch.cat([net.trunk(chunk) for chunk in chunks(images)])
        spread_attention(net, x)
        spread_depth(net.depth, images, DEPTH_MM)
        depth_mm = net.depth(images)
        balance_first_layer(net, x, depth_mm)
        _spread_probabilities(net, x, depth_mm)
    return net.float().eval()


def _spread_probabilities(net: MelanomaNet, x: Tensor, depth_mm: Tensor) -> None:
    """Centre the logits, and raise their gain until the malignant probability spans MALIGNANT_SPAN."""
    net.b3.sub_(net.tail(x, depth_mm).probabilities.log().mean(0))
    low, high = MALIGNANT_SPAN
    for _ in range(40):
        score = malignant_score(net.tail(x, depth_mm).probabilities.numpy(), net.card)
        if score.min() <= low and score.max() >= high:
            return
        net.w3.mul_(1.2)
        net.b3.mul_(1.2)
    raise RuntimeError(f"the drawn tiles span only {score.min():.2f} to {score.max():.2f}: take another SEED")


def write_demo_bundle(folder: Path) -> Path:
    """Return `folder`, which now holds the demo bundle.

    The weights do not depend on the machine beyond the last bits of its arithmetic; the parity is this machine's.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    tiles = drawn_tiles()
    net = demo_net(demo_card(), tiles)
    reference = reference_outputs(net, tiles)
    card = demo_card().model_copy(update={"cam_scale": measured_cam_scale(reference)})
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    head = head_tensors(net)
    graphs: dict[Precision, bytes] = {"fp32": to_onnx(net, card.tile_px)}
    golden = spanning_golden(net, tiles, reference)
    unsealed = Bundle(
        name=card.name,
        digest="",
        card=card,
        graphs=graphs,
        head=Head.from_tensors(dict(head)),
        golden=golden,
        parity=(),
        weights=save(weights),
    )
    parity = measured_parity(unsealed, reference, tiles)
    return seal_bundle(folder, card=card, graphs=graphs, golden=golden, parity=parity, head=head, weights=weights)


def main() -> None:
    """Write the demo bundle to the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write the demo bundle.")
    parser.add_argument("out", type=Path, help="the folder to make, such as demo.mminfer")
    write_demo_bundle(parser.parse_args().out)


if __name__ == "__main__":
    main()
