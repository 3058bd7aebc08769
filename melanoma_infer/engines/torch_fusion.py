"""The backbone in fewer launches: BatchNorm inside its convolution; bias, sum and ReLU in the convolution's kernel."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from melanoma_infer.model.resnet50 import Bottleneck, ResNet50Backbone

ERROR_MAX = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-5}
"""Largest difference between a fused convolution and PyTorch's own operators, as a share of the largest result: they
round at other places. A wrong bias, layout or sum is a hundred times further off."""


def fold_batchnorm(network: nn.Module) -> None:
    """Put each BatchNorm that follows a convolution into it, in place; the network is in evaluation mode.

    W' = W·γ / √(σ² + ε) and b' = β − μ·γ / √(σ² + ε) for each channel of the result. The convolution is the one that
    the BatchNorm's parent names right before it.
    """
    children = list(network.named_children())
    for (before, convolution), (name, norm) in pairwise(children):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(network, before, fuse_conv_bn_eval(convolution, norm))
            setattr(network, name, nn.Identity())
    for _, child in children:
        fold_batchnorm(child)


def fuse_convolutions(backbone: ResNet50Backbone) -> None:
    """Let cuDNN compute each convolution with its bias, sum and ReLU in one kernel, in place; BatchNorm is folded."""
    backbone.conv1, backbone.relu = ConvolutionRelu(backbone.conv1), nn.Identity()  # type: ignore[assignment]
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        for place, block in enumerate(stage):
            stage[place] = FusedBottleneck(cast(Bottleneck, block))


class ConvolutionRelu(nn.Module):
    """relu(convolution(x)), or relu(convolution(x) + skip), in one launch of cuDNN's."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return (N, channels out, h, w) in x's dtype; skip has that shape."""
        own = self.convolution
        shape = own.stride, own.padding, own.dilation, own.groups
        result: Tensor
        if skip is None:
            result = torch.ops.aten.cudnn_convolution_relu(x, own.weight, own.bias, *shape)
        else:
            result = torch.ops.aten.cudnn_convolution_add_relu(x, own.weight, skip, 1.0, own.bias, *shape)
        return result


class FusedBottleneck(nn.Module):
    """A Bottleneck whose BatchNorms are folded, in three launches, or four where the shortcut is a convolution."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.first, self.second, self.third = map(ConvolutionRelu, (block.conv1, block.conv2, block.conv3))
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """As `Bottleneck.forward`."""
        result: Tensor = self.third(self.second(self.first(x)), self.downsample(x))
        return result


def fuses_right(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether PyTorch fuses convolutions on this device, and a small one then agrees with its own operators."""
    random = torch.Generator().manual_seed(0)
    x, skip, weight = (torch.randn(shape, generator=random) for shape in ((2, 64, 9, 9), (2, 32, 9, 9), (32, 64, 3, 3)))
    convolution = nn.Conv2d(64, 32, 3, padding=1)
    convolution.weight.data, convolution.bias.data = weight / 24, torch.randn(32, generator=random)  # type: ignore[union-attr]
    convolution.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, skip = (value.to(device, dtype).contiguous(memory_format=torch.channels_last) for value in (x, skip))
    with torch.inference_mode():
        try:
            fused = [ConvolutionRelu(convolution)(x), ConvolutionRelu(convolution)(x, skip)]
        except (RuntimeError, NotImplementedError, AttributeError):  # no CUDA, an older cuDNN, or another PyTorch
            return False
        plain = [convolution(x).relu(), (convolution(x) + skip).relu()]
    return all(
        bool((one - other).abs().max() <= ERROR_MAX[dtype] * other.abs().max())
        for one, other in zip(fused, plain, strict=True)
    )
