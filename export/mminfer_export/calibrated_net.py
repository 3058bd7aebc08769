"""Random weights, rescaled on given tiles until the outputs span their ranges, for demo and random bundles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melanoma_infer.bundle.bundle import Golden
from melanoma_infer.bundle.head import Head
from melanoma_infer.card import ModelCard
from melanoma_infer.model.depth import DepthModule
from melanoma_infer.model.melanoma_net import MelanomaNet, TileOutputs, head_tensors
from melanoma_infer.model.resnet50 import Bottleneck
from mminfer_export.checked_bundle import golden_patients

CHUNK = 4
"""Tiles in one pass: larger passes spend their time on page faults."""
GOLDEN_TILES = 4
ATTENTION_LOGIT = 2.0
"""The 5th and 95th percentile of the attention logits are ± this: attention from 0.12 to 0.88."""


def chunks(images: Tensor) -> list[Tensor]:
    """The images in passes of CHUNK."""
    return [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]


def calibrate_normalisation(net: MelanomaNet, images: Tensor, residual_gain: float) -> None:
    """Set every batch normalisation's statistics to these images', so that no activation fades or explodes.

    `residual_gain` scales each residual branch: at 1 a random backbone amplifies rounding.
    """
    for block in net.backbone.modules():
        if isinstance(block, Bottleneck):
            torch.nn.init.constant_(block.bn3.weight, residual_gain)
    layers = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = None  # the plain average over the chunks
    net.train()
    for chunk in chunks(images):
        net.backbone(chunk)
    net.eval()


def spread_attention(net: MelanomaNet, x: Tensor) -> None:
    """Let the attention's logits span ± ATTENTION_LOGIT over the backbone's maps x (N, C, h, w)."""
    gain, shift = line(net.attention(x).attention.logit(), -ATTENTION_LOGIT, ATTENTION_LOGIT)
    net.attention.weight.mul_(gain)
    net.attention.bias.mul_(gain).add_(shift)


def spread_depth(depth: DepthModule, images: Tensor, span_mm: tuple[float, float]) -> None:
    """Standardise the hidden layers, so that no unit is dead, then let the depths span `span_mm`."""
    for layer in (depth.conv1, depth.conv2, depth.conv3, depth.hidden):
        standardise(layer, depth, images)
    low, high = (float(np.log(np.expm1(mm))) for mm in span_mm)  # softplus, inverted
    gain, shift = line(depth(images).expm1().log(), low, high)
    depth.out.weight.mul_(gain)
    depth.out.bias.mul_(gain).add_(shift)


def standardise(layer: torch.nn.Conv2d | torch.nn.Linear, depth: DepthModule, images: Tensor) -> None:
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


def line(values: Tensor, low: float, high: float) -> tuple[float, float]:
    """Gain and shift that take the 5th and 95th percentile of the values to `low` and `high`."""
    p5, p95 = np.percentile(values.numpy(), (5, 95))
    gain = (high - low) / (p95 - p5)
    return float(gain), float(low - gain * p5)


def balance_first_layer(net: MelanomaNet, x: Tensor, depth_mm: Tensor) -> None:
    """Let image, depth and patient each move the first layer: standard deviations of about 1, 0.5 and 1."""
    image = net.tail(x, torch.zeros_like(depth_mm)).features
    net.w1_image.div_(image.std(0).square().mean().sqrt())
    net.w1_depth.mul_(0.5 / (net.w1_depth.std() * depth_mm.std()))
    net.w1_patient.div_(net.w1_patient.std())
    net.b1.sub_(net.tail(x, depth_mm).features.mean(0))


def malignant_score(probabilities: NDArray[Any], card: ModelCard) -> NDArray[Any]:
    """The malignant score (N,) of probabilities (N, K)."""
    total: NDArray[Any] = probabilities[:, list(card.malignant_columns)].sum(1)
    return total


def reference_outputs(net: MelanomaNet, tiles: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The network's outputs by name, one tile a pass, as every engine computes them."""
    with torch.inference_mode():
        passes = [net(torch.from_numpy(tile[None])) for tile in tiles]
    return {name: torch.cat([getattr(each, name) for each in passes]).numpy() for name in TileOutputs._fields}


def spanning_golden(net: MelanomaNet, tiles: NDArray[np.uint8], reference: dict[str, NDArray[np.float32]]) -> Golden:
    """Four of the tiles, from the lowest to the highest malignant score, with what the network says about them."""
    order = np.argsort(malignant_score(reference["probabilities"], net.card))
    chosen = order[np.linspace(0, len(order) - 1, GOLDEN_TILES).round().astype(int)]
    outputs = {name: values[chosen] for name, values in reference.items()}
    patients = golden_patients(net.card, len(chosen))
    head = Head.from_tensors(dict(head_tensors(net)))
    host = [
        head.probabilities(features[None], patient)[0]
        for features, patient in zip(outputs["features"], patients, strict=True)
    ]
    return Golden(tiles[chosen], patients, outputs, np.stack(host))


def measured_cam_scale(reference: dict[str, NDArray[np.float32]]) -> float:
    """The lesion map's 75th percentile where it is positive, in tiles that hold a lesion, to two digits.

    Of all tiles, whatever its sign, where a random network's map is positive in none of these.
    """
    lesion = reference["cam"][reference["probabilities"][:, 0] < 0.5, 0]
    positive = lesion[lesion > 0]
    return float(f"{np.percentile(positive if positive.size else np.abs(reference['cam'][:, 0]), 75):.1e}")
