"""The functions that the kernels compute, in plain PyTorch: the truth of their tests, and what runs on a CPU.

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
WEIGHT_BITS = 22
"""Bits behind the point of a resampling's weights, as Pillow has them (Resample.c: PRECISION_BITS)."""


class Attended(NamedTuple):
    """The attended map (N, C, h, w) and the attention (N, h, w)."""

    attended: Tensor
    attention: Tensor


class Projection(NamedTuple):
    """Channel mean and maximum (N, h, w) and the projected map y = w1·x (N, F, h, w)."""

    average: Tensor
    maximum: Tensor
    projected: Tensor


class Classifier(NamedTuple):
    """The classifier's tensors besides the image's: N tiles, F features, M neurons in the middle, K classes."""

    depth_mm: Tensor
    """(N,), the thickness at each tile."""
    w1_depth: Tensor
    """(F,), the column of W1 that multiplies the depth."""
    offset: Tensor
    """(F,), b1 and the unknown patient's columns of W1."""
    w2: Tensor
    """(M, F)."""
    b2: Tensor
    """(M,)."""
    w3: Tensor
    """(K, M)."""
    b3: Tensor
    """(K,)."""
    groups: Tensor
    """(6, K): log-odds j is lse(z + groups[j]) − lse(z + groups[j + 3]). A row is 0 for the classes that it counts, and
    so low for the others that their exponentials vanish."""


class Tail(NamedTuple):
    """The outputs behind the backbone: N tiles, K classes, F features, maps of h × w."""

    probabilities: Tensor
    """(N, K), for an unknown patient."""
    attention: Tensor
    """(N, h, w), in [0, 1]."""
    cam: Tensor
    """(N, 3, h, w): what each place adds to three log-odds; signed."""
    features: Tensor
    """(N, F): w1_image·v + w1_depth·depth, v the attended map's global average."""


class Classified(NamedTuple):
    """What follows from the pooled image of N tiles."""

    probabilities: Tensor
    """(N, K), for an unknown patient."""
    features: Tensor
    """(N, F)."""
    gradients: Tensor
    """(N, 3, F): of three log-odds by the first layer, through the ReLU masks."""


SCORE_BITS = 41
"""A tile's score is a whole number of steps from 0 to 2⁴⁰, which stands for 1."""


class Aggregates(NamedTuple):
    """Exact sums over the tiles of S slides, each int64 (S,); 0 for a slide without tiles."""

    total: Tensor
    maximum: Tensor
    highest: Tensor
    """Σ of the k highest scores; of all if there are fewer."""
    last: Tensor
    """The lowest of these."""


class Resampling(NamedTuple):
    """How one axis of N tiles is resized; tiles whose axis is resized alike share one of T tables."""

    first: Tensor
    """int32 (T, out): the first input pixel of each output pixel, never falling."""
    weight: Tensor
    """int32 (T, taps, out): of input pixel first + t, in units of 2⁻²²; every such pixel exists."""
    of: Tensor
    """int32 (N,): each tile's table."""


def block_means(tiles: Tensor, side: int) -> Tensor:
    """Return means of side × side blocks, rounded half up: out = (2·Σ + side²) // (2·side²).

    Args:
        tiles: uint8, (N, H, W, 3 or 4); H and W are multiples of side.
        side: of a block, in pixels.

    Returns:
        uint8, (N, H / side, W / side, 3 or 4).
    """
    batch, height, width, pixel = tiles.shape
    blocks = tiles.reshape(batch, height // side, side, width // side, side, pixel)
    total = blocks.sum((2, 4), dtype=torch.int64)
    return ((2 * total + side**2) // (2 * side**2)).to(torch.uint8)


def resize_tiles(tiles: Tensor, across: Resampling, down: Resampling) -> Tensor:
    """Return tiles resized by integer weights, across and then down, with 8 bits between the passes (as Pillow).

    out[.., x, ..] = (2²¹ + Σ_t weight[t, x] · in[.., first[x] + t, ..]) >> 22, along each axis.

    Args:
        tiles: uint8, (N, H, W, 3 or 4); a fourth byte is ignored.
        across: of the columns.
        down: of the rows; as many output pixels.

    Returns:
        uint8, (N, out, out, 3).
    """
    return _resampled(_resampled(tiles[..., :3], across, 2), down, 1)


def _resampled(tiles: Tensor, resampling: Resampling, axis: int) -> Tensor:
    first, weight = resampling.first[resampling.of].long(), resampling.weight[resampling.of].long()
    broadcast = [len(tiles), 1, 1, 1]
    broadcast[axis] = first.shape[1]
    size = list(tiles.shape)
    size[axis] = first.shape[1]
    total = torch.full(size, 1 << WEIGHT_BITS - 1, dtype=torch.int64, device=tiles.device)
    for tap in range(weight.shape[1]):
        index = (first + tap).reshape(broadcast).expand(size)
        total += tiles.gather(axis, index) * weight[:, tap].reshape(broadcast)
    return (total >> WEIGHT_BITS).to(torch.uint8)


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


def attention_project(x: Tensor, w1_image: Tensor) -> Projection:
    """Return all that the rest of the tail needs to know of x: channel mean, channel maximum and y = w1_image·x.

    Args:
        x: (N, C, h, w).
        w1_image: (F, C), the columns of W1 that multiply the image.

    Raises:
        RuntimeError: a shape or dtype differs from the above (PyTorch's own message).
    """
    return Projection(x.mean(1), x.amax(1), functional.conv2d(x, w1_image[:, :, None, None]))


def attention_head(
    projection: Projection, weight: Tensor, bias: Tensor, classifier: Classifier, order: Order = "avg-max"
) -> Tail:
    """Return the tail's outputs from a projection of x.

    Average pooling and W1 are linear, so the projection may come before the weighting (with y = w1_image·x):

        A = σ(weight * concat(average, maximum) + bias);  features = Σ_p A[p]·y[p] / P + w1_depth·depth
        h1 = ReLU(features + offset);  h2 = ReLU(w2·h1 + b2);  z = w3·h2 + b3;  probabilities = softmax(z)
        cam[j, p] = A[p] · (u_j·y[p]) / P,  u_j the gradient of log-odds j by h1 through the ReLU masks

    Args:
        projection: what `attention_project` returns.
        weight: (1, 2, k, k), k odd.
        bias: (1,).
        classifier: the layers behind the features, and each tile's depth.
        order: of the two pooled maps.
    """
    average, maximum, projected = projection
    attention = _attention(average, maximum, weight, bias, order)
    image = (attention[:, None] * projected).mean((2, 3))
    classified = classify(image, classifier)
    # u·y before A: (3 × F)·(F × P) products a tile, and no map of F channels is weighted a second time.
    per_place = torch.matmul(classified.gradients, projected.flatten(2)).unflatten(2, attention.shape[1:])
    cam = attention[:, None] * per_place / (attention.shape[1] * attention.shape[2])
    return Tail(classified.probabilities, attention, cam, classified.features)


def classify(image: Tensor, classifier: Classifier) -> Classified:
    """Return what the layers behind the pooled image give, and the gradients of the log-odds.

    Args:
        image: (N, F), w1_image·v.
        classifier: the layers, and each tile's depth.
    """
    depth_mm, w1_depth, offset, w2, b2, w3, b3, groups = classifier
    features = image + depth_mm[:, None] * w1_depth
    first = (features + offset).relu()
    second = functional.linear(first, w2, b2).relu()
    logits = functional.linear(second, w3, b3)
    spread = (logits[:, None] + groups).softmax(2)
    at_second = torch.matmul(spread[:, :3] - spread[:, 3:], w3) * (second > 0)[:, None].to(second.dtype)
    gradients = torch.matmul(at_second, w2) * (first > 0)[:, None].to(first.dtype)
    return Classified(logits.softmax(1), features, gradients)


def attention_tail(
    x: Tensor, weight: Tensor, bias: Tensor, w1_image: Tensor, classifier: Classifier, order: Order = "avg-max"
) -> Tail:
    """Return the outputs behind the backbone from its feature map x (N, C, h, w).

    It is `attention_head` of `attention_project`, with the arguments of both.
    """
    return attention_head(attention_project(x, w1_image), weight, bias, classifier, order)


def aggregate_tiles(scores: Tensor, offsets: Tensor, ranks: Tensor) -> Aggregates:
    """Return the sums of tile scores from which slide scores follow: their mean, maximum and top-area mean.

    Slide s owns scores[offsets[s] : offsets[s + 1]].

    Args:
        scores: int64 (T,), from 0 to 2⁴⁰.
        offsets: int64 (S + 1,), from 0 to T, never falling.
        ranks: int64 (S,), from 1 on: k, how many scores are added up in `highest`.
    """
    rows = [
        _sums(scores[first:last].sort(descending=True).values, rank)
        for first, last, rank in zip(offsets[:-1].tolist(), offsets[1:].tolist(), ranks.tolist(), strict=True)
    ]
    table = torch.tensor(rows, dtype=torch.int64, device=scores.device).reshape(-1, len(Aggregates._fields))
    return Aggregates(*table.unbind(1))


def _sums(falling: Tensor, rank: int) -> tuple[int, int, int, int]:
    """The sums of one slide's scores, the highest first."""
    if not len(falling):
        return 0, 0, 0, 0
    top = falling[:rank]
    return int(falling.sum()), int(falling[0]), int(top.sum()), int(top[-1])


def _attention(average: Tensor, maximum: Tensor, weight: Tensor, bias: Tensor, order: Order) -> Tensor:
    first, second = (average, maximum) if order == "avg-max" else (maximum, average)
    pooled = torch.stack((first, second), dim=1)
    return functional.conv2d(pooled, weight, bias, padding=weight.shape[-1] // 2).sigmoid().squeeze(1)
