"""Spatial attention (paper Eq. 1 and 2) as a module: it holds W and b, and `mminfer_kernels` has the formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mminfer_kernels import reference, torch_ops

KERNEL_PX = 7


class SpatialAttention(nn.Module):
    """A = σ(W * concat(avg_c x, max_c x) + b), W a 7×7 convolution from 2 channels to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 2, KERNEL_PX, KERNEL_PX))
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="sigmoid")

    def forward(self, x: Tensor) -> reference.Attended:
        """Return the attended map (N, C, h, w) and the attention (N, h, w), as Eq. 2 writes it.

        One operator computes it, with kernels on CUDA, unless autograd, an exporter or a compiler records the single
        steps: none of them can look into the operator.
        """
        steps = torch.is_grad_enabled() and any(each.requires_grad for each in (x, self.weight, self.bias))
        steps |= torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        attend = reference.spatial_attention if steps else torch_ops.spatial_attention
        return attend(x, self.weight, self.bias)
