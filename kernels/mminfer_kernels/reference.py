"""The functions that the kernels compute, in plain PyTorch: the truth of their tests, and the CPU path.

Feature maps are channels-first by shape, (N, C, h, w), whatever their memory format; P = h·w. All tensors of a call
have one floating dtype. `order` says which pooled map the attention's convolution sees first: "avg-max" (Eq. 1) or
"max-avg".
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Order = Literal["avg-max", "max-avg"]


class Attended(NamedTuple):
    """The attended map (N, C, h, w) and the attention (N, h, w)."""

    attended: Tensor
    attention: Tensor


class Pooled(NamedTuple):
    """The global average of the attended map (N, C) and the attention (N, h, w)."""

    pooled: Tensor
    attention: Tensor


class Projection(NamedTuple):
    """Channel mean and maximum (N, h, w) and the projected map y = w1·x (N, F, h, w)."""

    average: Tensor
    maximum: Tensor
    projected: Tensor


class Tail(NamedTuple):
    """What follows the trunk: N tiles, K classes, F features, maps of h × w."""

    probabilities: Tensor
    """(N, K), of an unknown patient."""
    attention: Tensor
    """(N, h, w), in [0, 1]."""
    cam: Tensor
    """(N, 3, h, w): what each place adds to three log-odds; signed."""
    features: Tensor
    """(N, F): w1_image·v + w1_depth·depth, v the attended map's global average."""


class Aggregates(NamedTuple):
    """The scores of S slides, each (S,); NaN for a slide without tiles."""

    mean: Tensor
    maximum: Tensor
    hottest: Tensor


def normalize_tiles(tiles: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Return tiles as normalised maps: out[n, c, y, x] = (tiles[n, y, x, c] / 255 − mean[c]) / std[c].

    Args:
        tiles: uint8, (N, H, W, 3).
        mean: (3,).
        std: (3,), above 0.
        dtype: of the result; the arithmetic runs in the dtype of `mean`.

    Returns:
        (N, 3, H, W) in channels-last memory.
    """
    # Cast first: TensorRT-RTX cannot transpose uint8.
    images = tiles.to(mean.dtype).permute(0, 3, 1, 2) / 255
    return ((images - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)).to(dtype)


def spatial_attention(x: Tensor, weight: Tensor, bias: Tensor, order: Order = "avg-max") -> Attended:
    """Return the attended map and the attention (Eq. 1 and 2, as the paper writes them).

    A = σ(weight * concat(avg_c x, max_c x) + bias);  attended[n, c, p] = A[n, p] · x[n, c, p]

    Args:
        x: (N, C, h, w).
        weight: (1, 2, k, k), k odd; zero padding keeps h and w.
        bias: (1,).
        order: of the two pooled maps.

    Raises:
        RuntimeError: a shape or dtype differs from the above (PyTorch's own message).
    """
    attention = _attention(x.mean(1), x.amax(1), weight, bias, order)
    return Attended(attention[:, None] * x, attention)


def attention_pool(x: Tensor, weight: Tensor, bias: Tensor, order: Order = "avg-max") -> Pooled:
    """Return the global average of the attended map, which is never formed (Eq. 1 and 2, then GAP).

    pooled[n, c] = Σ_p A[n, p] · x[n, c, p] / P

    Args:
        x: (N, C, h, w).
        weight: (1, 2, k, k), k odd.
        bias: (1,).
        order: of the two pooled maps.

    Raises:
        RuntimeError: a shape or dtype differs from the above (PyTorch's own message).
    """
    attention = _attention(x.mean(1), x.amax(1), weight, bias, order)
    pooled = torch.matmul(x.flatten(2), attention.flatten(1)[..., None]).squeeze(-1)
    return Pooled(pooled / (x.shape[2] * x.shape[3]), attention)


def attention_project(x: Tensor, w1_image: Tensor) -> Projection:
    """Return everything of x that the rest of the tail needs: channel mean, channel maximum and y = w1_image·x.

    Args:
        x: (N, C, h, w).
        w1_image: (F, C), the columns of W1 that meet the image.

    Raises:
        RuntimeError: a shape or dtype differs from the above (PyTorch's own message).
    """
    return Projection(x.mean(1), x.amax(1), functional.conv2d(x, w1_image[:, :, None, None]))


def attention_head(
    average: Tensor,
    maximum: Tensor,
    projected: Tensor,
    weight: Tensor,
    bias: Tensor,
    depth_mm: Tensor,
    w1_depth: Tensor,
    offset: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    groups: Tensor,
    order: Order = "avg-max",
) -> Tail:
    """Return the tail's outputs from a projection of x.

    Average pooling and W1 are linear, so the projection may come before the weighting (with y = w1_image·x):

        A = σ(weight * concat(average, maximum) + bias);  features = Σ_p A[p]·y[p] / P + w1_depth·depth
        h1 = ReLU(features + offset);  h2 = ReLU(w2·h1 + b2);  z = w3·h2 + b3;  probabilities = softmax(z)
        cam[j, p] = A[p] · (u_j·y[p]) / P,  u_j the gradient of log-odds j by h1 through the ReLU masks

    Log-odds j is lse(z + groups[j]) − lse(z + groups[j + 3]): a row of `groups` is 0 for the classes that it counts,
    and so low elsewhere that their exponentials vanish.

    Args:
        average: (N, h, w).
        maximum: (N, h, w).
        projected: (N, F, h, w).
        weight: (1, 2, k, k), k odd.
        bias: (1,).
        depth_mm: (N,).
        w1_depth: (F,).
        offset: (F,), b1 and the unknown patient's columns of W1.
        w2: (M, F).
        b2: (M,).
        w3: (K, M).
        b3: (K,).
        groups: (6, K).
        order: of the two pooled maps.
    """
    attention = _attention(average, maximum, weight, bias, order)
    image = (attention[:, None] * projected).mean((2, 3))
    features = image + depth_mm[:, None] * w1_depth
    first = (features + offset).relu()
    second = functional.linear(first, w2, b2).relu()
    logits = functional.linear(second, w3, b3)
    spread = (logits[:, None] + groups).softmax(2)
    at_second = torch.matmul(spread[:, :3] - spread[:, 3:], w3) * (second > 0)[:, None].to(second.dtype)
    pull = torch.matmul(at_second, w2) * (first > 0)[:, None].to(first.dtype)
    # u·y before A: (3 × F)·(F × P) products a tile, and no map of F channels is weighted a second time.
    per_place = torch.matmul(pull, projected.flatten(2)).unflatten(2, attention.shape[1:])
    cam = attention[:, None] * per_place / (attention.shape[1] * attention.shape[2])
    return Tail(logits.softmax(1), attention, cam, features)


def attention_tail(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    w1_image: Tensor,
    depth_mm: Tensor,
    w1_depth: Tensor,
    offset: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    groups: Tensor,
    order: Order = "avg-max",
) -> Tail:
    """Return everything that follows the trunk, from its feature map x (N, C, h, w).

    `attention_head` of `attention_project`; the arguments are theirs.
    """
    average, maximum, projected = attention_project(x, w1_image)
    return attention_head(
        average, maximum, projected, weight, bias, depth_mm, w1_depth, offset, w2, b2, w3, b3, groups, order
    )


def aggregate_tiles(scores: Tensor, offsets: Tensor, hottest: Tensor) -> Aggregates:
    """Return slide scores from tile scores: mean, maximum, and the mean over each slide's hottest tiles.

    Slide s owns scores[offsets[s] : offsets[s + 1]]. Its hottest[s] highest scores count, the last of them for the
    fraction that is left; where it has fewer tiles, all do.

    Args:
        scores: (T,).
        offsets: int64, (S + 1,), from 0 to T, never falling.
        hottest: (S,), above 0: how many tiles cover the area, not a whole number in general.
    """
    rows = [
        _aggregates(scores[first:last], count)
        for first, last, count in zip(offsets[:-1].tolist(), offsets[1:].tolist(), hottest, strict=True)
    ]
    if not rows:
        return Aggregates(*(scores.new_empty(0) for _ in Aggregates._fields))
    return Aggregates(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _aggregates(scores: Tensor, hottest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not len(scores):
        nothing = scores.new_tensor(float("nan"))
        return nothing, nothing, nothing
    ranks = torch.arange(len(scores), dtype=scores.dtype, device=scores.device)
    weights = (hottest - ranks).clamp(0, 1)
    ordered = scores.sort(descending=True).values
    return scores.mean(), scores.amax(), (ordered * weights).sum() / weights.sum()


def _attention(average: Tensor, maximum: Tensor, weight: Tensor, bias: Tensor, order: Order) -> Tensor:
    first, second = (average, maximum) if order == "avg-max" else (maximum, average)
    pooled = torch.stack((first, second), dim=1)
    return functional.conv2d(pooled, weight, bias, padding=weight.shape[-1] // 2).sigmoid().squeeze(1)
