"""The functions that the kernels compute, in plain PyTorch: the truth of their tests, and the CPU path.

Feature maps are channels-first, (N, C, h, w); P = h·w. The convolution of the attention sees (avg, max), in that
order (Eq. 1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Attended(NamedTuple):
    """The attended map (N, C, h, w) and the attention (N, h, w)."""

    attended: Tensor
    attention: Tensor


class Pooled(NamedTuple):
    """The global average of the attended map (N, C) and the attention (N, h, w)."""

    pooled: Tensor
    attention: Tensor


class Projected(NamedTuple):
    """The attention (N, h, w), the projected map y = w1v·x (N, F, h, w) and the image's features (N, F)."""

    attention: Tensor
    projected: Tensor
    features: Tensor


def _attention(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
    return functional.conv2d(pooled, weight, bias, padding=weight.shape[-1] // 2).sigmoid().squeeze(1)


def spatial_attention(x: Tensor, weight: Tensor, bias: Tensor) -> Attended:
    """Return the attended map and the attention (Eq. 1 and 2, as the paper writes them).

    A = σ(weight * concat(avg_c x, max_c x) + bias);  attended[n, c, p] = A[n, p] · x[n, c, p]

    Args:
        x: (N, C, h, w), any floating dtype.
        weight: (1, 2, k, k), k odd; zero padding keeps h and w.
        bias: (1,).

    Raises:
        RuntimeError: a shape or dtype differs from the above (PyTorch's own message).
    """
    attention = _attention(x, weight, bias)
    return Attended(attention[:, None] * x, attention)


def attention_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Pooled:
    """Return the global average of the attended map, which is never formed (Eq. 1 and 2, then GAP).

    pooled[n, c] = Σ_p A[n, p] · x[n, c, p] / P

    Args:
        x: (N, C, h, w), any floating dtype.
        weight: (1, 2, k, k), k odd.
        bias: (1,).

    Raises:
        RuntimeError: a shape or dtype differs from the above (PyTorch's own message).
    """
    attention = _attention(x, weight, bias)
    pooled = torch.matmul(x.flatten(2), attention.flatten(1)[..., None]).squeeze(-1)
    return Pooled(pooled / (x.shape[2] * x.shape[3]), attention)


def attention_project(x: Tensor, weight: Tensor, bias: Tensor, w1v: Tensor) -> Projected:
    """Return the attention, the projected map and the image's half of the classifier's first layer.

    Average pooling and W1 are linear, so the projection may come before the weighting:
    features = w1v · GAP(A ⊙ x) = Σ_p A[n, p] · y[n, :, p] / P with y[n, :, p] = w1v · x[n, :, p].

    Args:
        x: (N, C, h, w), any floating dtype.
        weight: (1, 2, k, k), k odd.
        bias: (1,).
        w1v: (F, C), the columns of W1 that meet the image.

    Raises:
        RuntimeError: a shape or dtype differs from the above (PyTorch's own message).
    """
    attention = _attention(x, weight, bias)
    projected = functional.conv2d(x, w1v[:, :, None, None])
    return Projected(attention, projected, (attention[:, None] * projected).mean((2, 3)))
