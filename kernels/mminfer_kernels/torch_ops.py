"""The kernels as PyTorch operators: the functions of `reference` under the same names, one opaque operator each.

On CUDA a call launches kernels; elsewhere, and for a map that is not channels-last, it runs the plain function, in
float32. Either way results have the same dtypes and layouts. `torch.export` and `torch.compile` see one operator.
Where Triton's interpreter is on (TRITON_INTERPRET=1), CPU tensors take the kernels too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mminfer_kernels import reference
from mminfer_kernels.reference import Aggregates, Attended, Order, Pooled, Projection, Tail

OPERATORS = torch.ops.mminfer


def normalize_tiles(tiles: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """`reference.normalize_tiles` as one operator.

    Args:
        tiles: uint8, (N, H, W, 3), contiguous.
        mean: float32, (3,).
        std: float32, (3,), above 0.
        dtype: float16, bfloat16 or float32.

    Returns:
        (N, 3, H, W), channels-last.

    Raises:
        KernelInputError: a shape, dtype or layout differs from the above (on CUDA).
    """
    images: Tensor = OPERATORS.normalize_tiles(tiles, mean, std, dtype)
    return images


def spatial_attention(x: Tensor, weight: Tensor, bias: Tensor, order: Order = "avg-max") -> Attended:
    """`reference.spatial_attention` as one operator.

    Args:
        x: float16, bfloat16 or float32, (N, C, h, w).
        weight: float32, (1, 2, k, k), k odd.
        bias: float32, (1,).
        order: of the two pooled maps.

    Returns:
        The attended map in x's dtype, channels-last; the attention in float32.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Attended(*OPERATORS.spatial_attention(x, weight, bias, order))


def attention_pool(x: Tensor, weight: Tensor, bias: Tensor, order: Order = "avg-max") -> Pooled:
    """`reference.attention_pool` as one operator: arguments of `spatial_attention`, pooled in x's dtype.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Pooled(*OPERATORS.attention_pool(x, weight, bias, order))


def attention_project(x: Tensor, w1_image: Tensor) -> Projection:
    """`reference.attention_project` as one operator; w1_image has x's dtype, the results are float32.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Projection(*OPERATORS.attention_project(x, w1_image))


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
    """`reference.attention_head` as one operator; everything is float32, projected channels-last.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Tail(
        *OPERATORS.attention_head(
            average, maximum, projected, weight, bias, depth_mm, w1_depth, offset, w2, b2, w3, b3, groups, order
        )
    )


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
    """`reference.attention_tail` as one operator: one launch, or two where `launch.tail_plan` says so.

    x and w1_image have one dtype, float16, bfloat16 or float32; everything else is float32, the results too.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Tail(
        *OPERATORS.attention_tail(x, weight, bias, w1_image, depth_mm, w1_depth, offset, w2, b2, w3, b3, groups, order)
    )


def aggregate_tiles(scores: Tensor, offsets: Tensor, hottest: Tensor) -> Aggregates:
    """`reference.aggregate_tiles` as one operator: scores and hottest float32, offsets int64.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Aggregates(*OPERATORS.aggregate_tiles(scores, offsets, hottest))


class _Like(NamedTuple):
    """What an output looks like."""

    shape: tuple[Any, ...]
    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = torch.contiguous_format

    def empty(self, device: torch.device) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device=device, memory_format=self.layout)

    def laid_out(self, value: Tensor) -> Tensor:
        return value.to(self.dtype).contiguous(memory_format=self.layout)


Likes = tuple[_Like, ...]


def _like_images(tiles: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Likes:
    batch, height, width, _ = tiles.shape
    return (_Like((batch, 3, height, width), dtype, torch.channels_last),)


def _like_attended(x: Tensor, *_: Any) -> Likes:
    batch, _channels, height, width = x.shape
    return _Like(tuple(x.shape), x.dtype, torch.channels_last), _Like((batch, height, width))


def _like_pooled(x: Tensor, *_: Any) -> Likes:
    batch, channels, height, width = x.shape
    return _Like((batch, channels), x.dtype), _Like((batch, height, width))


def _like_projection(x: Tensor, w1_image: Tensor) -> Likes:
    batch, _channels, height, width = x.shape
    plane = _Like((batch, height, width))
    return plane, plane, _Like((batch, w1_image.shape[0], height, width), layout=torch.channels_last)


def _like_tail(planes: Tensor, features: int, classes: int) -> Likes:
    batch, height, width = planes.shape[0], planes.shape[-2], planes.shape[-1]
    shapes = (batch, classes), (batch, height, width), (batch, 3, height, width), (batch, features)
    return tuple(_Like(shape) for shape in shapes)


def _like_aggregates(scores: Tensor, offsets: Tensor, hottest: Tensor) -> Likes:
    return (_Like(tuple(hottest.shape)),) * 3


_CLASSIFIER = (
    "Tensor depth_mm, Tensor w1_depth, Tensor offset, "
    "Tensor w2, Tensor b2, Tensor w3, Tensor b3, Tensor groups, str order"
)

_TABLE: dict[str, tuple[str, Callable[..., Likes]]] = {
    "normalize_tiles": ("(Tensor tiles, Tensor mean, Tensor std, ScalarType dtype) -> Tensor", _like_images),
    "spatial_attention": ("(Tensor x, Tensor weight, Tensor bias, str order) -> (Tensor, Tensor)", _like_attended),
    "attention_pool": ("(Tensor x, Tensor weight, Tensor bias, str order) -> (Tensor, Tensor)", _like_pooled),
    "attention_project": ("(Tensor x, Tensor w1_image) -> (Tensor, Tensor, Tensor)", _like_projection),
    "attention_head": (
        "(Tensor average, Tensor maximum, Tensor projected, Tensor weight, Tensor bias, "
        f"{_CLASSIFIER}) -> (Tensor, Tensor, Tensor, Tensor)",
        lambda *a: _like_tail(a[0], features=a[6].shape[0], classes=a[10].shape[0]),
    ),
    "attention_tail": (
        f"(Tensor x, Tensor weight, Tensor bias, Tensor w1_image, {_CLASSIFIER}) -> (Tensor, Tensor, Tensor, Tensor)",
        lambda *a: _like_tail(a[0], features=a[3].shape[0], classes=a[9].shape[0]),
    ),
    "aggregate_tiles": (
        "(Tensor scores, Tensor offsets, Tensor hottest) -> (Tensor, Tensor, Tensor)",
        _like_aggregates,
    ),
}
"""By name: the operator's schema, and what its outputs look like."""


def _uses_kernels(first: Tensor) -> bool:
    """Whether the kernels compute this: on CUDA or in the interpreter, and maps only where they are channels-last."""
    if first.dim() == 4 and first.is_floating_point() and not first.is_contiguous(memory_format=torch.channels_last):
        return False
    return first.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def _launched(name: str, *arguments: Any) -> Any:
    # Imported here: CPU users need no Triton.
    from mminfer_kernels.launch import processors_of, tail_plan, target_of

    device = arguments[0].device
    target = target_of(device)

    def run(kernel: str, *given: Any) -> Any:
        return import_module(f"mminfer_kernels.{kernel}").plan(*given, target=target).run()

    if name != "attention_tail":
        return run(name, *arguments)
    x, weight, bias, w1_image, *rest = arguments
    plan, _ = tail_plan(x.shape[0], x.shape[2] * x.shape[3], processors_of(device))
    if plan == "attention_tail":
        return run("attention_tail", *arguments)
    return run("attention_head", *run("attention_project", x, w1_image), weight, bias, *rest)


def _plain(name: str, *arguments: Any) -> Any:
    taken = [a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments]
    return getattr(reference, name)(*taken)


def _compute(name: str, likes: Callable[..., Likes], *arguments: Any) -> Any:
    result = (_launched if _uses_kernels(arguments[0]) else _plain)(name, *arguments)
    results = (result,) if isinstance(result, Tensor) else tuple(result)
    return _one_or_all([like.laid_out(value) for like, value in zip(likes(*arguments), results, strict=True)])


def _fake(likes: Callable[..., Likes], *arguments: Any) -> Any:
    return _one_or_all([like.empty(arguments[0].device) for like in likes(*arguments)])


def _one_or_all(results: list[Tensor]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


_LIBRARY = torch.library.Library("mminfer", "DEF")
for _name, (_schema, _likes) in _TABLE.items():
    _LIBRARY.define(_name + _schema, tags=(torch.Tag.needs_fixed_stride_order,))
    for _device in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, partial(_compute, _name, _likes), _device)
    torch.library.register_fake(f"mminfer::{_name}", partial(_fake, _likes), lib=_LIBRARY)
