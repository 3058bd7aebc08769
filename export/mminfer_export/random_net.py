"""Our network with random weights that behaves like a trained one, for benchmarks and parity checks.

A network of independent random weights amplifies every rounding: with bf16 it was seen to err by 0.07 in p, because
what differs between tiles is a small part of what is computed. Here the backbone is random, and every layer after it
looks along the directions in which tiles differ most. Of several such tails the one is taken that rounding moves least.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from melanoma_infer.card import ModelCard
from melanoma_infer.model.depth import DepthModule
from melanoma_infer.model.melanoma_net import MelanomaNet
from melanoma_infer.tolerances import DEFAULT_TOLERANCES
from mminfer_export.calibrated_net import (
    balance_first_layer,
    calibrate_normalisation,
    chunks,
    spread_attention,
    spread_depth,
    standardise,
)

RESIDUAL_GAIN = 0.1
DIRECTIONS = 8
"""The number of principal directions of the tiles that a layer responds to."""
DEPTH_MM = (0.1, 2.16)
"""Depth at the 5th and 95th percentile: bf16's own step is 0.016 mm from 2 mm on, and the tolerance 0.02 mm."""
LOG_ODDS = 3.0
"""The lowest and highest malignant log-odds: p from 0.047 to 0.953."""
WITHIN_ROLE = 0.3
"""How far classes of one role differ, relative to the difference between malignant and other classes."""
DRAWS = 24
"""The number of tails to try: the effect of rounding differs threefold between them."""
MIDDLE_HALF = 0.2
"""The malignant scores of the middle half of the tiles reach at least this far: else one odd tile spans the range, all
others have nearly the same answer, and other tiles do not."""
STEPS = 30
"""Iterations of the search, which converges after ten."""


def random_net(card: ModelCard, images_u8: Tensor, seed: int) -> MelanomaNet:
    """The network for a card, float32, its outputs spanning their ranges on tiles uint8 (N, tile_px, tile_px, 3).

    Of several tails that part the tiles, the one whose answers bf16 and int8 move least: over many other tiles they
    were seen to be moved up to twice as far, and tolerances hold for all.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = MelanomaNet.from_card(card)
        images = net.normalised(images_u8)
        calibrate_normalisation(net, images, RESIDUAL_GAIN)
        maps = _maps_of(net, images)
        drawn = (_with_tail(net, maps.fp32, images, seed + draw) for draw in range(DRAWS))
        return min(drawn, key=lambda each: _badness(each, maps, images))


@dataclass(frozen=True)
class _Maps:
    """What the backbone gives for the same tiles, float32 (N, C, h, w), computed in three precisions."""

    fp32: Tensor
    bf16: Tensor
    int8: Tensor


def _maps_of(net: MelanomaNet, images: Tensor) -> _Maps:
    def maps(backbone: nn.Module, like: Tensor) -> Tensor:
        return torch.cat([backbone(chunk) for chunk in chunks(like)]).float()

    bf16, int8 = copy.deepcopy(net.backbone).bfloat16(), copy.deepcopy(net.backbone)
    # Rounds what enters each convolution but the first to 8 bits, and each channel's weights.
    for layer in [each for each in int8.modules() if isinstance(each, nn.Conv2d)][1:]:
        layer.weight.copy_(_in_steps(layer.weight, layer.weight.abs().amax((1, 2, 3), keepdim=True)))
        layer.register_forward_pre_hook(lambda _layer, inputs: (_in_steps(inputs[0], inputs[0].abs().max()),))
    return _Maps(maps(net.backbone, images), maps(bf16, images.bfloat16()), maps(int8, images))


def _in_steps(values: Tensor, largest: Tensor) -> Tensor:
    step = largest.clamp(min=torch.finfo(values.dtype).tiny) / 127
    return (values / step).round() * step


def _with_tail(net: MelanomaNet, x: Tensor, images: Tensor, seed: int) -> MelanomaNet:
    """A copy of the network with another tail; in float64 while it is set.

    The attention's and the depth's inverse would lose what float32 has rounded to 0 or 1.
    """
    torch.manual_seed(seed)
    drawn, x, images = copy.deepcopy(net).double(), x.double(), images.double()
    # Two off-centre bumps: a smooth kernel averages rounding away, and no flip or swap of axes leaves it unchanged.
    kernel = drawn.attention.weight
    side = torch.arange(kernel.shape[-1], dtype=x.dtype) - kernel.shape[-1] // 2
    for channel, (pooled, dx, dy, share) in enumerate(((x.mean(1), 1, -1, 1.0), (x.amax(1), -1, 1, 0.5))):
        bump = torch.outer(torch.exp(-((side - dy) ** 2) / 8), torch.exp(-((side - dx) ** 2) / 8))
        kernel[0, channel] = share * bump / bump.sum() / pooled.std()
    spread_attention(drawn, x)
    _look_along_tiles(drawn.w1_image, _fair_directions((drawn.attention(x).attention[:, None] * x).mean((2, 3))))
    # The hidden layer responds to how the tiles differ, and the depth to what differs most in it. A random last layer
    # was seen to give 6 mm for tiles finer than those it is set on, which bf16 then misses by 0.03.
    depth = drawn.depth
    for layer in (depth.conv1, depth.conv2, depth.conv3):
        standardise(layer, depth, images)
    _look_along_tiles(depth.hidden.weight, _directions(_inputs_of(depth.hidden, depth, images)))
    standardise(depth.hidden, depth, images)
    depth.out.weight.copy_(_directions(_inputs_of(depth.out, depth, images))[:1])
    spread_depth(depth, images, DEPTH_MM)
    depth_mm = depth(images)
    balance_first_layer(drawn, x, depth_mm)
    first = (drawn.tail(x, depth_mm).features + drawn.offset()).relu()
    _look_along_tiles(drawn.w2, _fair_directions(first))
    second = first @ drawn.w2.T
    drawn.w2.div_(second.std(0)[:, None])
    drawn.b2.copy_(-second.mean(0) / second.std(0))
    _set_last_layer(drawn, (first @ drawn.w2.T + drawn.b2).relu())
    return drawn.float().eval()


def _badness(net: MelanomaNet, maps: _Maps, images: Tensor) -> tuple[bool, float]:
    """Whether the outputs separate the tiles too little, and how far rounding moves them.

    The latter as a share of the bf16 or int8 tolerance; int8 rounds only the backbone.
    """
    depth_mm = net.depth(images)
    exact = net.tail(maps.fp32, depth_mm).probabilities
    int8 = net.tail(maps.int8, depth_mm).probabilities
    with torch.autocast("cpu", torch.bfloat16):
        bf16_mm = net.depth(images).float()
        bf16 = net.tail(maps.bf16, bf16_mm).probabilities
    score = exact[:, list(net.card.malignant_columns)].sum(1)
    low, high = np.percentile(score.numpy(), (25, 75))
    return not high - low >= MIDDLE_HALF, max(
        float((bf16 - exact).abs().max()) / DEFAULT_TOLERANCES["bf16"].dp,
        float((bf16_mm - depth_mm).abs().max()) / DEFAULT_TOLERANCES["bf16"].dmm,
        float((int8 - exact).abs().max()) / DEFAULT_TOLERANCES["int8"].dp,
    )


def _look_along_tiles(weight: Tensor, directions: Tensor) -> None:
    """Replace weights (M, C) by random mixtures of directions (K, C)."""
    weight.copy_(torch.randn(len(weight), len(directions), dtype=weight.dtype) @ directions)


def _directions(inputs: Tensor) -> Tensor:
    """The directions (DIRECTIONS, C) in which inputs (N, C) differ most, that one first."""
    rows: Tensor = torch.linalg.svd(inputs - inputs.mean(0), full_matrices=False).Vh
    return rows[:DIRECTIONS]


def _fair_directions(inputs: Tensor) -> Tensor:
    """The same, with no tile weighted more than the median tile.

    Along the direction of one odd tile all others would have nearly the same answer.
    """
    apart = inputs - inputs.median(0).values
    lengths = apart.norm(dim=1, keepdim=True)
    rows: Tensor = torch.linalg.svd(apart / lengths.clamp(min=float(lengths.median())), full_matrices=False).Vh
    return rows[:DIRECTIONS]


def _inputs_of(layer: nn.Module, depth: DepthModule, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    depth(images)
    hook.remove()
    return seen[0]


def _set_last_layer(net: MelanomaNet, second: Tensor) -> None:
    """Let the direction in which tiles differ most separate malignant from other classes, and lesser ones the rest.

    Random rows would make one class's probability far steeper than the malignant score, whose span is what is set, and
    log-odds so large that bf16's own step moves p. The classes are then centred, and the lowest and highest malignant
    log-odds made ± LOG_ODDS, malignant and other classes moved apart by halves: near even odds all logits are small,
    and so is bf16's step.
    """
    malignant = list(net.card.malignant_columns)
    directions = _fair_directions(second)
    signs = torch.full((len(net.w3), 1), -1.0, dtype=net.w3.dtype)
    signs[malignant] = 1.0
    net.w3.copy_(
        signs * directions[:1] + WITHIN_ROLE * torch.randn(len(net.w3), 2, dtype=net.w3.dtype) @ directions[1:3]
    )
    net.b3.copy_(-(second @ net.w3.T).mean(0))
    halves = torch.full_like(net.b3, -0.5)
    halves[malignant] = 0.5
    for _ in range(STEPS):
        odds = (second @ net.w3.T + net.b3).softmax(1)[:, malignant].sum(1).logit()
        low, high = float(odds.min()), float(odds.max())
        net.b3.sub_(halves * (low + high) / 2)
        gain = 2 * LOG_ODDS / (high - low)
        net.w3.mul_(gain)
        net.b3.mul_(gain)
