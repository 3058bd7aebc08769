"""The demo bundle: a narrow network with random weights, rescaled so that its outputs can tell right from wrong.

Nothing in it is trained, and its card says so. Tiles are drawn, calibrated upon, and chosen by fixed seeds:
``python -m mminfer_export.demo_bundle OUT`` writes the bundle again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from melanoma_infer.bundle import Bundle, Golden, ParityRow
from melanoma_infer.card import Aggregator, Cut, ModelCard, NetworkShape, Outcome, PatientField, Precision
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.openvino_engine import cpu_has_bf16
from melanoma_infer.head import Head
from melanoma_infer.model.depth import DepthModule
from melanoma_infer.model.melanoma_net import MelanomaNet, TileOutputs, head_tensors
from melanoma_infer.model.resnet50 import Bottleneck
from melanoma_infer.patients import Patient, one_hot
from mminfer_export.parity import compare
from mminfer_export.seal import seal_bundle
from mminfer_export.to_onnx import to_onnx

SEED = 23
TILES = 32
CHUNK = 4
"""Tiles a pass: a larger one spends its time on page faults."""
GOLDEN_TILES = 4
ATTENTION_LOGIT = 2.0
"""Attention logits lie within ± this at the 5th and 95th percentile: A from 0.12 to 0.88."""
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
        _calibrate_normalisation(net, images)
        x = torch.cat([net.trunk(chunk) for chunk in _chunks(images)])
        _spread_attention(net, x)
        _spread_depth(net.depth, images)
        depth_mm = net.depth(images)
        _balance_first_layer(net, x, depth_mm)
        _spread_probabilities(net, x, depth_mm)
    return net.float().eval()


def _chunks(images: Tensor) -> list[Tensor]:
    return [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]


def _calibrate_normalisation(net: MelanomaNet, images: Tensor) -> None:
    """Set every batch normalisation's statistics to these images', so that no activation fades or explodes."""
    for block in net.trunk.modules():
        if isinstance(block, Bottleneck):
            torch.nn.init.constant_(block.bn3.weight, RESIDUAL_GAIN)
    layers = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = None  # the plain average over the chunks
    net.train()
    for chunk in _chunks(images):
        net.trunk(chunk)
    net.eval()


def _spread_attention(net: MelanomaNet, x: Tensor) -> None:
    gain, shift = _line(net.attention(x).attention.logit(), -ATTENTION_LOGIT, ATTENTION_LOGIT)
    net.attention.weight.mul_(gain)
    net.attention.bias.mul_(gain).add_(shift)


def _spread_depth(depth: DepthModule, images: Tensor) -> None:
    """Standardise the hidden layers, so that no unit is dead, then let the depths span DEPTH_MM."""
    for layer in (depth.conv1, depth.conv2, depth.conv3, depth.hidden):
        _standardise(layer, depth, images)
    low, high = (float(np.log(np.expm1(mm))) for mm in DEPTH_MM)  # softplus, inverted
    gain, shift = _line(depth(images).expm1().log(), low, high)
    depth.out.weight.mul_(gain)
    depth.out.bias.mul_(gain).add_(shift)


def _standardise(layer: torch.nn.Conv2d | torch.nn.Linear, depth: DepthModule, images: Tensor) -> None:
    """Give each of the layer's channels mean 0 and standard deviation 1 over these images."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    depth(images)
    hook.remove()
    channels = seen[0].transpose(0, 1).flatten(1)
    mean, gain = channels.mean(1), 1 / channels.std(1)
    assert layer.bias is not None  # DepthModule's layers have one
    layer.bias.sub_(mean).mul_(gain)
    layer.weight.mul_(gain.reshape(-1, *[1] * (layer.weight.dim() - 1)))


def _line(values: Tensor, low: float, high: float) -> tuple[float, float]:
    """Gain and shift that take the 5th and 95th percentile of the values to `low` and `high`."""
    p5, p95 = np.percentile(values.numpy(), (5, 95))
    gain = (high - low) / (p95 - p5)
    return float(gain), float(low - gain * p5)


def _balance_first_layer(net: MelanomaNet, x: Tensor, depth_mm: Tensor) -> None:
    """Let image, depth and patient each move the first layer: standard deviations of about 1, 0.5 and 0.5."""
    image = net.tail(x, torch.zeros_like(depth_mm)).features
    net.w1_image.div_(image.std(0).square().mean().sqrt())
    net.w1_depth.mul_(0.5 / (net.w1_depth.std() * depth_mm.std()))
    net.w1_patient.mul_(0.5 / net.w1_patient.std())
    net.b1.sub_(net.tail(x, depth_mm).features.mean(0))


def _spread_probabilities(net: MelanomaNet, x: Tensor, depth_mm: Tensor) -> None:
    """Centre the logits, and raise their gain until the malignant probability spans MALIGNANT_SPAN."""
    net.b3.sub_(net.tail(x, depth_mm).probabilities.log().mean(0))
    low, high = MALIGNANT_SPAN
    for _ in range(40):
        score = _malignant(net.tail(x, depth_mm).probabilities.numpy(), net.card)
        if score.min() <= low and score.max() >= high:
            return
        net.w3.mul_(1.2)
        net.b3.mul_(1.2)
    raise RuntimeError(f"the drawn tiles span only {score.min():.2f} to {score.max():.2f}: take another SEED")


def _malignant(probabilities: NDArray[Any], card: ModelCard) -> NDArray[Any]:
    total: NDArray[Any] = probabilities[:, list(card.malignant_columns)].sum(1)
    return total


def demo_golden(net: MelanomaNet, tiles: NDArray[np.uint8]) -> Golden:
    """Four of the tiles, from the lowest to the highest malignant score, with what the network says about them."""
    reference = _run(net, tiles)
    order = np.argsort(_malignant(reference["probabilities"], net.card))
    chosen = order[np.linspace(0, len(order) - 1, GOLDEN_TILES).round().astype(int)]
    outputs = {name: values[chosen] for name, values in reference.items()}
    patients = _patients(net.card, len(chosen))
    head = Head.from_tensors(dict(head_tensors(net)))
    host = [
        head.probabilities(features[None], patient)[0]
        for features, patient in zip(outputs["features"], patients, strict=True)
    ]
    return Golden(tiles[chosen], patients, outputs, np.stack(host))


def _patients(card: ModelCard, count: int) -> NDArray[np.float64]:
    """One-hot vectors (count, P): first the unknown patient, then ones whose values differ from each other's."""
    vectors = np.zeros((count, card.patient_columns))
    vectors[0] = one_hot(Patient(), card.patient_fields)
    for row in range(1, count):
        start = 0
        for field in card.patient_fields:
            vectors[row, start + (row - 1) % len(field.values)] = 1.0
            start += field.columns
    return vectors


def _run(net: MelanomaNet, tiles: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The network's outputs, one tile a pass, as every engine computes them."""
    with torch.inference_mode():
        passes = [net(torch.from_numpy(tile[None])) for tile in tiles]
    return {name: torch.cat([getattr(each, name) for each in passes]).numpy() for name in TileOutputs._fields}


def measured_parity(
    bundle: Bundle, reference: dict[str, NDArray[np.float32]], tiles: NDArray[np.uint8]
) -> list[ParityRow]:
    """One row for each engine and precision that runs on this machine."""
    wanted: list[tuple[str, Precision]] = [("torch", "fp32"), ("openvino", "fp32"), ("onnxruntime", "fp32")]
    if cpu_has_bf16():
        wanted.append(("openvino", "bf16"))
    rows = []
    for name, precision in wanted:
        engine = load_engine(bundle, name, precision=precision).engine
        rows.append(
            compare(
                reference,
                engine.infer(tiles),
                card=bundle.card,
                numerics=engine.numerics,
                on=f"{len(tiles)} drawn tiles",
            )
        )
    return rows


def write_demo_bundle(folder: Path) -> Path:
    """Return `folder`, which now holds the demo bundle.

    The weights do not depend on the machine beyond the last bits of its arithmetic; the parity is this machine's.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    tiles = drawn_tiles()
    net = demo_net(demo_card(), tiles)
    reference = _run(net, tiles)
    card = demo_card().model_copy(update={"cam_scale": _cam_scale(reference)})
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    head = head_tensors(net)
    graphs: dict[Precision, bytes] = {"fp32": to_onnx(net, card.tile_px)}
    golden = demo_golden(net, tiles)
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


def _cam_scale(reference: dict[str, NDArray[np.float32]]) -> float:
    """The lesion map's 75th percentile where it is positive, in tiles that hold a lesion, to two digits."""
    lesion = reference["cam"][reference["probabilities"][:, 0] < 0.5, 0]
    return float(f"{np.percentile(lesion[lesion > 0], 75):.1e}")


def main() -> None:
    """Write the demo bundle to the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write the demo bundle.")
    parser.add_argument("out", type=Path, help="the folder to make, such as demo.mminfer")
    write_demo_bundle(parser.parse_args().out)


if __name__ == "__main__":
    main()
