"""Spatial attention (paper Eq. 1 and 2) as a module: it holds W and b, the formula is `mminfer_kernels.reference`'s."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mminfer_kernels import reference

KERNEL_PX = 7


class SpatialAttention(nn.Module):
    """A = σ(W * concat(avg_c x, max_c x) + b), W a 7×7 convolution from 2 channels to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 2, KERNEL_PX, KERNEL_PX))
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="sigmoid")

    def forward(self, x: Tensor) -> reference.Attended:
        """Return the attended map (N, C, h, w) and the attention (N, h, w), as Eq. 2 writes it."""
        return reference.spatial_attention(x, self.weight, self.bias)
