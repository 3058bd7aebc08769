"""Our network with random weights that behaves like a trained one: what benchmarks and parity checks run on.

A network of independent random weights amplifies every rounding: with bf16 it was seen to err by 0.07 in p, because
what differs between tiles is a small part of what is computed. Here the trunk is random, and every layer after it looks
along the directions in which tiles differ most.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from melanoma_infer.card import DEFAULT_GATES, ModelCard
from melanoma_infer.model.depth import DepthModule
from melanoma_infer.model.melanoma_net import MelanomaNet
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
"""Principal directions of the tiles that a layer looks along."""
DEPTH_MM = (0.25, 2.3)
"""Depth at the 5th and 95th percentile: bf16's own step is 0.016 mm from 2 mm on, and the gate 0.02 mm."""
LOG_ODDS = 3.0
"""The lowest and highest malignant log-odds: p from 0.047 to 0.953."""
WIDE, WIDE_DRAWS, NARROW_DRAWS = 64, 6, 24
"""Tails that are tried: between draws, what bf16 moves differs threefold, and a narrow network averages less of it."""
STEPS = 30
"""Of the search for them, which is over after ten."""


def random_net(card: ModelCard, images_u8: Tensor, seed: int) -> MelanomaNet:
    """The network for a card, float32, its outputs spanning their ranges on tiles uint8 (N, tile_px, tile_px, 3).

    Of several tails, the one whose answers bf16 moves least for how far they lie apart: where every tile is at the end
    of its range nothing moves, and nothing tells right from wrong.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = MelanomaNet.from_card(card)
        images = net.normalised(images_u8)
        calibrate_normalisation(net, images, RESIDUAL_GAIN)
        x = torch.cat([net.trunk(chunk) for chunk in chunks(images)])
        half = copy.deepcopy(net.trunk).bfloat16()
        rounded = torch.cat([half(chunk) for chunk in chunks(images.bfloat16())]).float()
        draws = WIDE_DRAWS if net.trunk.conv1.out_channels >= WIDE else NARROW_DRAWS
        drawn = [_with_tail(net, x, images, seed + draw) for draw in range(draws)]

        def moved(each: MelanomaNet) -> float:
            return _moved(each, x, rounded, images) / _apart(each, x, images)

        return min(drawn, key=moved)


def _with_tail(net: MelanomaNet, x: Tensor, images: Tensor, seed: int) -> MelanomaNet:
    """A copy of the network with another tail; in float64 while it is set.

    The attention's and the depth's inverse would lose what float32 has rounded to 0 or 1.
    """
    torch.manual_seed(seed)
    drawn = copy.deepcopy(net).double()
    _set_tail(drawn, x.double(), images.double())
    return drawn.float().eval()


def _moved(net: MelanomaNet, x: Tensor, rounded: Tensor, images: Tensor) -> float:
    """How far bf16 in the trunk and in the depth module moves the answers, as a share of bf16's gate."""
    gate = DEFAULT_GATES["bf16"]
    depth_mm = net.depth(images)
    rounded_mm = copy.deepcopy(net.depth).bfloat16()(images.bfloat16()).float()
    dp = net.tail(x, depth_mm).probabilities - net.tail(rounded, rounded_mm).probabilities
    return max(float(dp.abs().max()) / gate.dp, float((rounded_mm - depth_mm).abs().max()) / gate.dmm)


def _apart(net: MelanomaNet, x: Tensor, images: Tensor) -> float:
    """The range of the middle half of the malignant scores."""
    score = net.tail(x, net.depth(images)).probabilities[:, list(net.card.malignant_columns)].sum(1)
    return float(score.quantile(0.75) - score.quantile(0.25))


def _set_tail(net: MelanomaNet, x: Tensor, images: Tensor) -> None:
    _smooth_attention(net, x)
    spread_attention(net, x)
    _look_along_tiles(net.w1_image, (net.attention(x).attention[:, None] * x).mean((2, 3)))
    _set_depth(net, images)
    depth_mm = net.depth(images)
    balance_first_layer(net, x, depth_mm)
    first = (net.tail(x, depth_mm).features + net.offset()).relu()
    _look_along_tiles(net.w2, first)
    _standardise_second(net, first)
    second = (first @ net.w2.T + net.b2).relu()
    _oppose_classes(net, second)
    _spread_log_odds(net, second)


def _smooth_attention(net: MelanomaNet, x: Tensor) -> None:
    """Two bumps beside the kernel's middle: a smooth kernel averages rounding away, and no flip or swap leaves it."""
    side = torch.arange(net.attention.weight.shape[-1], dtype=x.dtype) - net.attention.weight.shape[-1] // 2
    for channel, (pooled, dx, dy, share) in enumerate(((x.mean(1), 1, -1, 1.0), (x.amax(1), -1, 1, 0.5))):
        bump = torch.outer(torch.exp(-((side - dy) ** 2) / 8), torch.exp(-((side - dx) ** 2) / 8))
        net.attention.weight[0, channel] = share * bump / bump.sum() / pooled.std()


def _look_along_tiles(weight: Tensor, inputs: Tensor) -> None:
    """Replace weights (M, C) by random mixtures of the directions in which inputs (N, C) differ most."""
    directions = _directions(inputs, DIRECTIONS)
    weight.copy_(torch.randn(len(weight), len(directions), dtype=weight.dtype) @ directions)


def _directions(inputs: Tensor, count: int) -> Tensor:
    """The directions (count, C) in which inputs (N, C) differ most, that one first."""
    rows: Tensor = torch.linalg.svd(inputs - inputs.mean(0), full_matrices=False).Vh
    return rows[:count]


def _set_depth(net: MelanomaNet, images: Tensor) -> None:
    """Let the hidden layer look along the tiles, and the depth follow what differs most in it.

    A random last layer was seen to give 6 mm for tiles finer than those it is set on, which bf16 then misses by 0.03.
    """
    depth = net.depth
    for layer in (depth.conv1, depth.conv2, depth.conv3):
        standardise(layer, depth, images)
    _look_along_tiles(depth.hidden.weight, _inputs_of(depth.hidden, depth, images))
    standardise(depth.hidden, depth, images)
    depth.out.weight.copy_(_directions(_inputs_of(depth.out, depth, images), 1))
    spread_depth(depth, images, DEPTH_MM)


def _inputs_of(layer: nn.Module, depth: DepthModule, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    depth(images)
    hook.remove()
    return seen[0]


def _standardise_second(net: MelanomaNet, first: Tensor) -> None:
    second = first @ net.w2.T
    net.w2.div_(second.std(0)[:, None])
    net.b2.copy_(-second.mean(0) / second.std(0))


def _oppose_classes(net: MelanomaNet, second: Tensor) -> None:
    """Let the direction in which tiles differ most part malignant from other classes, and lesser ones the rest.

    Random rows would make one class's probability far steeper than the malignant score, whose span is what is set.
    """
    directions = _directions(second, 3)
    signs = torch.full((len(net.w3), 1), -1.0, dtype=net.w3.dtype)
    signs[list(net.card.malignant_columns)] = 1.0
    net.w3.copy_(signs * directions[:1] + torch.randn(len(net.w3), 2, dtype=net.w3.dtype) @ directions[1:])


def _spread_log_odds(net: MelanomaNet, second: Tensor) -> None:
    """Centre the classes, then let the lowest and highest malignant log-odds be ± LOG_ODDS."""
    net.b3.copy_(-(second @ net.w3.T).mean(0))
    malignant = list(net.card.malignant_columns)
    for _ in range(STEPS):
        odds = (second @ net.w3.T + net.b3).softmax(1)[:, malignant].sum(1).logit()
        low, high = float(odds.min()), float(odds.max())
        net.b3[malignant] -= (low + high) / 2
        gain = 2 * LOG_ODDS / (high - low)
        net.w3.mul_(gain)
        net.b3.mul_(gain)
