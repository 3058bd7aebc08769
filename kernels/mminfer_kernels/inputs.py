"""Checks of the kernels' arguments, made once on the host; each message names the argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.reference import Classifier, Order, Resampling, Tail

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
        """The kernels' constants for this shape and this order of the two pooled maps."""
        return {
            "C": self.channels, "H": self.height, "W": self.width,
            "SIZE": self.kernel_size, "AVG_FIRST": order == "avg-max",
        }  # fmt: skip


@dataclass(frozen=True)
class HeadShape:
    """N tiles, F features, M neurons in the middle, K classes."""

    batch: int
    features: int
    middle: int
    classes: int

    def constants(self) -> dict[str, Any]:
        """The kernels' constants for this shape."""
        return {"F": self.features, "M": self.middle, "K": self.classes}

    def empty_tail(self, height: int, width: int, device: torch.device) -> Tail:
        """The outputs of the tail, float32, not written yet."""
        batch = self.batch
        sizes = (batch, self.classes), (batch, height, width), (batch, 3, height, width), (batch, self.features)
        return Tail(*(torch.empty(size, device=device) for size in sizes))


def check_map(x: Tensor, weight: Tensor, bias: Tensor) -> MapShape:
    """Return the shape of a channels-last map and its attention's convolution.

    Raises:
        KernelInputError: x is not a channels-last map with a dtype in DTYPES, or weight or bias does not fit.
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
    """Raise unless x is a channels-last map with a dtype in DTYPES.

    Raises:
        KernelInputError: x is something else.
    """
    if x.dim() != 4 or x.dtype not in DTYPES or 0 in x.shape[1:]:
        raise KernelInputError(f"x is {x.dtype} {tuple(x.shape)}: give float16, bfloat16 or float32 (N, C, h, w).")
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise KernelInputError("x is not channels-last: call x.contiguous(memory_format=torch.channels_last).")


def check_pixels(tiles: Tensor) -> tuple[int, int, int, int]:
    """Return (N, H, W, bytes of a pixel) of tiles as a reader gives them.

    Raises:
        KernelInputError: they are not contiguous uint8 (N, H, W, 3 or 4), or one has 2³¹ bytes or more.
    """
    if tiles.dim() != 4 or tiles.dtype != torch.uint8 or tiles.shape[3] not in (3, 4):
        raise KernelInputError(f"tiles are {tiles.dtype} {tuple(tiles.shape)}: give uint8 (N, H, W, 3 or 4).")
    batch, height, width, pixel = tiles.shape
    if height * width * pixel >= 2**31:
        raise KernelInputError(f"tiles are {tuple(tiles.shape)}: one of them has 2³¹ bytes or more. Give smaller ones.")
    check("tiles", tiles, (batch, height, width, pixel), torch.uint8, tiles.device)
    return batch, height, width, pixel


def check_resampling(name: str, resampling: Resampling, batch: int, out: int, device: torch.device) -> None:
    """Raise unless a resampling is that of so many tiles and output pixels.

    Raises:
        KernelInputError: a tensor has another shape, dtype or device.
    """
    tables, taps = len(resampling.first), resampling.weight.shape[1]
    for part, shape in (("first", (tables, out)), ("weight", (tables, taps, out)), ("of", (batch,))):
        check(f"{name}.{part}", getattr(resampling, part), shape, torch.int32, device)


def check_classifier(batch: int, features: int, classifier: Classifier) -> HeadShape:
    """Return the shape of a classifier for so many tiles and features.

    Raises:
        KernelInputError: a tensor has another shape, dtype or device than the others require.
    """
    middle, classes = classifier.w2.shape[0], classifier.w3.shape[0]
    if any(size < 16 or size & (size - 1) for size in (features, middle)):
        raise KernelInputError(f"The layers have {features} and {middle} neurons: give powers of two from 16.")
    shapes: tuple[tuple[int, ...], ...] = (
        (batch,), (features,), (features,), (middle, features), (middle,), (classes, middle), (classes,), (6, classes),
    )  # fmt: skip
    for name, tensor, shape in zip(Classifier._fields, classifier, shapes, strict=True):
        check(name, tensor, shape, torch.float32, classifier.depth_mm.device)
    return HeadShape(batch, features, middle, classes)


def check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    """Raise unless a tensor is contiguous and has that shape, dtype and device.

    Raises:
        KernelInputError: it does not; the message names it.
    """
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != device:
        found = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise KernelInputError(f"{name} is {found}: give {dtype} {shape} on {device}.")
    if not tensor.is_contiguous():
        raise KernelInputError(f"{name} is not contiguous: call .contiguous() on it.")
