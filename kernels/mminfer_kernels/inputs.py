"""What the kernels take: checked once, on the host, with messages that name the argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.reference import Order

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class MapShape:
    """A feature map's (N, C, h, w), and the size k of the attention's k×k convolution."""

    batch: int
    channels: int
    height: int
    width: int
    kernel_size: int

    @property
    def pixels(self) -> int:
        """P = h·w."""
        return self.height * self.width

    def constants(self, order: Order) -> dict[str, Any]:
        """The kernels' constants of this shape, and of the order of the two pooled maps."""
        return {
            "C": self.channels, "H": self.height, "W": self.width,
            "SIZE": self.kernel_size, "AVG_FIRST": order == "avg-max",
        }  # fmt: skip


@dataclass(frozen=True)
class HeadShape:
    """F features, M neurons in the middle, K classes."""

    features: int
    middle: int
    classes: int

    def constants(self) -> dict[str, Any]:
        """The kernels' constants of this shape."""
        return {"F": self.features, "M": self.middle, "K": self.classes}


def check_map(x: Tensor, weight: Tensor, bias: Tensor) -> MapShape:
    """The shape of a channels-last map and its attention's convolution.

    Raises:
        KernelInputError: x is not a channels-last map of a dtype in DTYPES, or weight or bias does not fit.
    """
    check_feature_map(x)
    size = weight.shape[-1]
    if weight.dim() != 4 or size % 2 == 0:
        raise KernelInputError(f"weight is {tuple(weight.shape)}: give (1, 2, k, k) with k odd.")
    check("weight", weight, (1, 2, size, size), torch.float32, x.device)
    check("bias", bias, (1,), torch.float32, x.device)
    batch, channels, height, width = x.shape
    return MapShape(batch, channels, height, width, size)


def check_feature_map(x: Tensor) -> None:
    """Refuse what is not a channels-last map of a dtype in DTYPES.

    Raises:
        KernelInputError: x is something else.
    """
    if x.dim() != 4 or x.dtype not in DTYPES or 0 in x.shape[1:]:
        raise KernelInputError(f"x is {x.dtype} {tuple(x.shape)}: give float16, bfloat16 or float32 (N, C, h, w).")
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise KernelInputError("x is not channels-last: call x.contiguous(memory_format=torch.channels_last).")


def check_head(
    shape: MapShape,
    dtype: torch.dtype,
    w1_image: Tensor,
    depth_mm: Tensor,
    w1_depth: Tensor,
    offset: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    groups: Tensor,
) -> HeadShape:
    """The shape of a classifier behind a map.

    Raises:
        KernelInputError: a tensor has another shape, dtype or device than the others ask for.
    """
    check("w1_image", w1_image, (w1_image.shape[0], shape.channels), dtype, depth_mm.device)
    return check_classifier(shape.batch, w1_image.shape[0], depth_mm, w1_depth, offset, w2, b2, w3, b3, groups)


def check_classifier(
    batch: int,
    features: int,
    depth_mm: Tensor,
    w1_depth: Tensor,
    offset: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    groups: Tensor,
) -> HeadShape:
    """The shape of a classifier of so many features.

    Raises:
        KernelInputError: a tensor has another shape, dtype or device than the others ask for.
    """
    middle, classes = w2.shape[0], w3.shape[0]
    if any(size < 16 or size & (size - 1) for size in (features, middle)):
        raise KernelInputError(f"The layers have {features} and {middle} neurons: give powers of two from 16.")
    expected = {
        "depth_mm": (depth_mm, (batch,)), "w1_depth": (w1_depth, (features,)), "offset": (offset, (features,)),
        "w2": (w2, (middle, features)), "b2": (b2, (middle,)), "w3": (w3, (classes, middle)), "b3": (b3, (classes,)),
        "groups": (groups, (6, classes)),
    }  # fmt: skip
    for name, (tensor, wanted) in expected.items():
        check(name, tensor, wanted, torch.float32, depth_mm.device)
    return HeadShape(features, middle, classes)


def check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a tensor that is not contiguous, of that shape and dtype, on that device.

    Raises:
        KernelInputError: it is not; the message names it.
    """
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != device:
        found = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise KernelInputError(f"{name} is {found}: give {dtype} {shape} on {device}.")
    if not tensor.is_contiguous():
        raise KernelInputError(f"{name} is not contiguous: call .contiguous() on it.")
