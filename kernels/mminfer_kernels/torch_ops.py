"""The kernels as PyTorch operators: the functions of `reference`, with their names and signatures, one operator each.

On a CUDA GPU from sm_80 a call launches kernels. Elsewhere, and for a map that is not channels-last, it runs the
reference, in float32 where the arguments are narrower. Either way the results have the same dtypes and layouts.
`torch.export` and `torch.compile` see one operator.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mminfer_kernels import reference
from mminfer_kernels.inputs import DTYPES
from mminfer_kernels.launch import TailPlan, Target, tail_plan, target_of
from mminfer_kernels.reference import Aggregates, Attended, Classifier, Order, Projection, Resampling, Tail

OPERATORS = torch.ops.mminfer
_TRITON_IS_INSTALLED = find_spec("triton") is not None
"""Triton exists for Linux only; the torch engine runs on CUDA without it."""


def block_means(tiles: Tensor, side: int) -> Tensor:
    """`reference.block_means` as one operator: uint8 (N, H, W, 3 or 4) → (N, H / side, W / side, 3 or 4).

    Raises:
        KernelInputError: a shape, dtype or layout differs from the above (on CUDA).
    """
    means: Tensor = OPERATORS.block_means(tiles, side)
    return means


def resize_tiles(tiles: Tensor, across: Resampling, down: Resampling) -> Tensor:
    """`reference.resize_tiles` as one operator: uint8 (N, H, W, 3 or 4) → (N, out, out, 3).

    Raises:
        KernelInputError: a shape, dtype or layout differs from the above (on CUDA).
    """
    images: Tensor = OPERATORS.resize_tiles(tiles, *across, *down)
    return images


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
        x: float16, bfloat16, float32 or float64, (N, C, h, w); kernels compute the first three.
        weight: float32, or float64 with x, (1, 2, k, k), k odd.
        bias: in weight's dtype, (1,).
        order: of the two pooled maps.

    Returns:
        The attended map in x's dtype, channels-last; the attention in weight's dtype.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Attended(*OPERATORS.spatial_attention(x, weight, bias, order))


def attention_project(x: Tensor, w1_image: Tensor) -> Projection:
    """`reference.attention_project` as one operator; w1_image has x's dtype, the results are float32.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Projection(*OPERATORS.attention_project(x, w1_image))


def attention_head(
    projection: Projection, weight: Tensor, bias: Tensor, classifier: Classifier, order: Order = "avg-max"
) -> Tail:
    """`reference.attention_head` as one operator; everything is float32, projection.projected channels-last.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Tail(*OPERATORS.attention_head(*projection, weight, bias, *classifier, order))


def attention_tail(
    x: Tensor, weight: Tensor, bias: Tensor, w1_image: Tensor, classifier: Classifier, order: Order = "avg-max"
) -> Tail:
    """`reference.attention_tail` as one operator: one launch, or the two that `launch.tail_plan` prefers.

    x and w1_image have one dtype, float16, bfloat16 or float32; everything else is float32, the results too.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Tail(*OPERATORS.attention_tail(x, weight, bias, w1_image, *classifier, order))


def aggregate_tiles(scores: Tensor, offsets: Tensor, ranks: Tensor) -> Aggregates:
    """`reference.aggregate_tiles` as one operator.

    Raises:
        KernelInputError: a shape or dtype differs from the above (on CUDA).
    """
    return Aggregates(*OPERATORS.aggregate_tiles(scores, offsets, ranks))


class _Like(NamedTuple):
    """Shape, dtype and layout of an output."""

    shape: tuple[Any, ...]
    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = torch.contiguous_format


class _Operator(NamedTuple):
    """A function as PyTorch sees it: operators take and return tensors, not records of tensors."""

    schema: str
    outputs: Callable[..., tuple[_Like, ...]]
    """From the function's arguments."""
    arguments: Callable[..., tuple[Any, ...]] = lambda *flat: flat
    """The function's arguments, from the operator's."""


def _tail_outputs(planes: Tensor, classifier: Classifier) -> tuple[_Like, ...]:
    batch, height, width = planes.shape[0], planes.shape[-2], planes.shape[-1]
    features, classes = classifier.w1_depth.shape[0], classifier.b3.shape[0]
    shapes = (batch, classes), (batch, height, width), (batch, 3, height, width), (batch, features)
    return tuple(_Like(shape) for shape in shapes)


_CLASSIFIER = ", ".join(f"Tensor {name}" for name in Classifier._fields)

_RESAMPLING = ", ".join(f"Tensor {axis}_{name}" for axis in ("across", "down") for name in Resampling._fields)

_TABLE = {
    "block_means": _Operator(
        "(Tensor tiles, int side) -> Tensor",
        lambda tiles, side: (
            _Like((len(tiles), tiles.shape[1] // side, tiles.shape[2] // side, tiles.shape[3]), torch.uint8),
        ),
    ),
    "resize_tiles": _Operator(
        f"(Tensor tiles, {_RESAMPLING}) -> Tensor",
        lambda tiles, across, down: (
            _Like((len(tiles), across.first.shape[1], across.first.shape[1], 3), torch.uint8),
        ),
        lambda *flat: (flat[0], Resampling(*flat[1:4]), Resampling(*flat[4:])),
    ),
    "normalize_tiles": _Operator(
        "(Tensor tiles, Tensor mean, Tensor std, ScalarType dtype) -> Tensor",
        lambda tiles, mean, std, dtype: (_Like((len(tiles), 3, *tiles.shape[1:3]), dtype, torch.channels_last),),
    ),
    "spatial_attention": _Operator(
        "(Tensor x, Tensor weight, Tensor bias, str order) -> (Tensor, Tensor)",
        lambda x, weight, bias, order: (
            _Like(tuple(x.shape), x.dtype, torch.channels_last),
            _Like((x.shape[0], *x.shape[2:]), weight.dtype),
        ),
    ),
    "attention_project": _Operator(
        "(Tensor x, Tensor w1_image) -> (Tensor, Tensor, Tensor)",
        lambda x, w1_image: (
            _Like((x.shape[0], *x.shape[2:])),
            _Like((x.shape[0], *x.shape[2:])),
            _Like((x.shape[0], w1_image.shape[0], *x.shape[2:]), layout=torch.channels_last),
        ),
    ),
    "attention_head": _Operator(
        f"(Tensor average, Tensor maximum, Tensor projected, Tensor weight, Tensor bias, {_CLASSIFIER}, str order)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
        lambda projection, weight, bias, classifier, order: _tail_outputs(projection.average, classifier),
        lambda *flat: (Projection(*flat[:3]), *flat[3:5], Classifier(*flat[5:-1]), flat[-1]),
    ),
    "attention_tail": _Operator(
        f"(Tensor x, Tensor weight, Tensor bias, Tensor w1_image, {_CLASSIFIER}, str order)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
        lambda x, weight, bias, w1_image, classifier, order: _tail_outputs(x, classifier),
        lambda *flat: (*flat[:4], Classifier(*flat[4:-1]), flat[-1]),
    ),
    "aggregate_tiles": _Operator(
        "(Tensor scores, Tensor offsets, Tensor ranks) -> (Tensor, Tensor, Tensor, Tensor)",
        lambda scores, offsets, ranks: (_Like(tuple(ranks.shape), torch.int64),) * 4,
    ),
}


def compute(name: str, *flat: Any, target: Target | None = None, processors: int = 0) -> Any:
    """Return a function's outputs: from its kernels on a target, or from the reference if there is none.

    Args:
        name: of the function.
        flat: the operator's arguments.
        target: what the kernels are compiled for.
        processors: the number of the GPU's multiprocessors.
    """
    arguments = _TABLE[name].arguments(*flat)
    # The kernels take maps that are channels-last and not float64.
    first = flat[0]
    is_map = first.dim() == 4 and first.is_floating_point()
    fits = not is_map or (first.dtype in DTYPES and first.is_contiguous(memory_format=torch.channels_last))
    if target is not None and fits:
        result = _launched(name, arguments, target, processors)
    else:
        narrow = (torch.float16, torch.bfloat16)
        wide = [each.float() if isinstance(each, Tensor) and each.dtype in narrow else each for each in flat]
        result = getattr(reference, name)(*_TABLE[name].arguments(*wide))
    results = (result,) if isinstance(result, Tensor) else tuple(result)
    return _one_or_all(
        value.to(like.dtype).contiguous(memory_format=like.layout)
        for like, value in zip(_TABLE[name].outputs(*arguments), results, strict=True)
    )


def tail_by(plan: TailPlan, arguments: tuple[Any, ...], target: Target) -> Tail:
    """Return the outputs of `attention_tail` from its kernels by a plan, whichever `launch.tail_plan` prefers.

    Args:
        plan: one launch, or two.
        arguments: those of `attention_tail`, in order.
        target: what the kernels are compiled for.

    Raises:
        KernelInputError: a shape or dtype is not what `attention_tail` takes, or the map is too large for one launch.
    """
    if plan == "attention_tail":
        return Tail(*_run("attention_tail", arguments, target))
    x, weight, bias, w1_image, classifier, order = arguments
    projection = _run("attention_project", (x, w1_image), target)
    return Tail(*_run("attention_head", (projection, weight, bias, classifier, order), target))


def _launched(name: str, arguments: tuple[Any, ...], target: Target, processors: int) -> Any:
    if name != "attention_tail":
        return _run(name, arguments, target)
    batch, _, height, width = arguments[0].shape
    return tail_by(tail_plan(batch, height * width, processors)[0], arguments, target)


def _run(kernel: str, arguments: tuple[Any, ...], target: Target) -> Any:
    # Imported here because CPU users need no Triton.
    return import_module(f"mminfer_kernels.{kernel}").plan(*arguments, target=target).run()


def _compute_on_gpu(name: str, *flat: Any) -> Any:
    device = flat[0].device
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    target = target_of(device) if _TRITON_IS_INSTALLED else None
    return compute(name, *flat, target=target, processors=processors)


def _fake(name: str, *flat: Any) -> Any:
    likes = _TABLE[name].outputs(*_TABLE[name].arguments(*flat))
    return _one_or_all(
        torch.empty(like.shape, dtype=like.dtype, device=flat[0].device, memory_format=like.layout) for like in likes
    )


def _one_or_all(results: Any) -> Any:
    first, *rest = results
    return (first, *rest) if rest else first


_LIBRARY = torch.library.Library("mminfer", "DEF")
for _name, _operator in _TABLE.items():
    _LIBRARY.define(_name + _operator.schema, tags=(torch.Tag.needs_fixed_stride_order,))
    _LIBRARY.impl(_name, partial(compute, _name), "CPU")
    _LIBRARY.impl(_name, partial(_compute_on_gpu, _name), "CUDA")
    torch.library.register_fake(f"mminfer::{_name}", partial(_fake, _name), lib=_LIBRARY)
