"""Every kernel by name, with random arguments of any size, for benchmarks, proofs and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mminfer_kernels import reference as plain
from mminfer_kernels.exact import exact_float32
from mminfer_kernels.launch import Planned, Target
from mminfer_kernels.reference import SCORE_BITS, Classifier, Order, Projection, Resampling
from mminfer_kernels.resampling import Span, resampling

KERNELS = (
    "block_means",
    "resize_tiles",
    "normalize_tiles",
    "spatial_attention",
    "attention_tail",
    "attention_project",
    "attention_head",
    "aggregate_tiles",
)
"""The functions of this package. Each is a module with a `plan`, and a function of `reference` and `torch_ops`."""

ONLY = {"attention_head": torch.float32, "aggregate_tiles": torch.int64}
"""The functions whose inputs have one dtype whatever the backbone's."""
OF_PIXELS = ("block_means", "resize_tiles")
"""The functions from uint8 to uint8, whose results are exact."""
RECORDS = (Classifier, Projection, Resampling)
"""The records among the functions' arguments."""


@dataclass(frozen=True)
class Problem:
    """The sizes of all arguments, and the backbone's dtype; uint8 for functions of pixels."""

    dtype: torch.dtype
    batch: int = 2
    channels: int = 2048
    height: int = 16
    width: int = 16
    kernel_size: int = 7
    order: Order = "avg-max"
    tile_px: int = 512
    features: int = 128
    middle: int = 64
    classes: int = 4
    native_px: int | None = None
    """Side of a tile before its resize; None for twice tile_px."""
    block_px: int = 2
    pixel_bytes: int = 4

    @property
    def before_px(self) -> int:
        """Side of a tile before its resize."""
        return 2 * self.tile_px if self.native_px is None else self.native_px

    @property
    def shape(self) -> str:
        """(N, C, h, w), for rows of results."""
        return f"{self.batch}x{self.channels}x{self.height}x{self.width}"


def dtypes(name: str) -> tuple[torch.dtype, ...]:
    """The dtypes for which a kernel exists."""
    if name in OF_PIXELS:
        return (torch.uint8,)
    return (ONLY[name],) if name in ONLY else (torch.float16, torch.bfloat16, torch.float32)


def inputs(name: str, problem: Problem, seed: int = 0) -> dict[str, Any]:
    """Random arguments for a function, by name, on the CPU; maps are not negative, as after a ReLU."""
    random = torch.Generator().manual_seed(seed)
    match name:
        case "block_means":
            side = problem.before_px // problem.block_px * problem.block_px
            return {"tiles": _pixels(random, problem, side), "side": problem.block_px}
        case "resize_tiles":
            # A whole tile, and one that is a fraction of a pixel off the pixels' grid.
            size = problem.before_px + 1
            spans = Span(size, 0.0, size - 1.0), Span(size, 0.625, size - 0.375)
            axis, of = resampling(spans, problem.tile_px), (torch.arange(problem.batch) % 2).int()
            across, down = axis._replace(of=of), Resampling(axis.first.clone(), axis.weight.clone(), 1 - of)
            return {"tiles": _pixels(random, problem, size), "across": across, "down": down}
        case "normalize_tiles":
            shape = (problem.batch, problem.tile_px, problem.tile_px, 3)
            tiles = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
            mean, std = torch.tensor([0.7, 0.55, 0.65]), torch.tensor([0.2, 0.24, 0.18])
            return {"tiles": tiles, "mean": mean, "std": std, "dtype": problem.dtype}
        case "aggregate_tiles":
            # Slides of 0, 1, 1025 and 257·batch tiles with some equal scores; one has fewer tiles than its rank.
            sizes = torch.tensor([0, 1, 1025, 257 * problem.batch])
            offsets = torch.cat((torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)))
            scores = torch.randint(0, 2 ** (SCORE_BITS - 1) + 1, (int(offsets[-1]),), generator=random)
            scores[5:25] = scores[5]
            scores[30:33] = 2 ** (SCORE_BITS - 1)
            return {"scores": scores, "offsets": offsets, "ranks": torch.tensor([2, 4, 8, 100])}
    x = _normal(random, problem.batch, problem.channels, problem.height, problem.width).relu()
    x = x.to(problem.dtype).contiguous(memory_format=torch.channels_last)
    convolution = {
        "weight": _normal(random, 1, 2, problem.kernel_size, problem.kernel_size) / 5,
        "bias": _normal(random, 1),
    }
    w1_image = (_normal(random, problem.features, problem.channels) / problem.channels**0.5).to(problem.dtype)
    head = {"classifier": _classifier(problem, random), "order": problem.order}
    match name:
        case "spatial_attention":
            return {"x": x, **convolution, "order": problem.order}
        case "attention_tail":
            return {"x": x, **convolution, "w1_image": w1_image, **head}
        case "attention_project":
            return {"x": x, "w1_image": w1_image}
        case "attention_head":
            projection = plain.attention_project(x.float(), w1_image.float())
            projected = projection.projected.contiguous(memory_format=torch.channels_last)
            return {"projection": projection._replace(projected=projected), **convolution, **head}
    raise ValueError(f"There is no kernel {name!r}: choose from {', '.join(KERNELS)}.")


def plan(name: str, arguments: dict[str, Any], target: Target) -> Planned[Any]:
    """The outputs and launches of a kernel for these arguments on a target.

    Raises:
        KernelInputError: the kernel does not take the arguments.
    """
    planned: Planned[Any] = import_module(f"mminfer_kernels.{name}").plan(**arguments, target=target)
    return planned


def reference(name: str, arguments: dict[str, Any], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """The outputs of the reference, with every floating argument converted to `dtype` first; float32 is not TF32."""
    taken = map_tensors(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, arguments)
    if name == "normalize_tiles":
        taken["dtype"] = dtype
    with exact_float32():
        return outputs_of(getattr(plain, name)(**taken))


def outputs_of(result: Any) -> tuple[Tensor, ...]:
    """The tensors in a function's result."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def map_tensors(function: Callable[[Tensor], Tensor], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with a function applied to every tensor, also to those in records."""
    return {
        name: type(value)(*map(function, value))
        if isinstance(value, RECORDS)
        else function(value)
        if isinstance(value, Tensor)
        else value
        for name, value in arguments.items()
    }


def flat(arguments: dict[str, Any]) -> list[Any]:
    """The arguments in order, records replaced by their tensors: what the operator takes."""
    return [each for value in arguments.values() for each in (value if isinstance(value, RECORDS) else (value,))]


def _pixels(random: torch.Generator, problem: Problem, side: int) -> Tensor:
    """Noise of all levels, with a tile of 0 and 255 alone among it."""
    size = (problem.batch, side, side, problem.pixel_bytes)
    tiles = torch.randint(0, 256, size, dtype=torch.uint8, generator=random)
    tiles[1:2] = (tiles[1:2] > 127).byte() * 255
    return tiles


def _normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random)


def _classifier(problem: Problem, random: torch.Generator) -> Classifier:
    features, middle, classes = problem.features, problem.middle, problem.classes
    groups = torch.zeros(6, classes)
    for row in range(3):  # class 0 … row against the others
        groups[row, : row % (classes - 1) + 1] = -1e4
        groups[row + 3, row % (classes - 1) + 1 :] = -1e4
    return Classifier(
        depth_mm=_normal(random, problem.batch).abs(),
        w1_depth=_normal(random, features),
        offset=_normal(random, features),
        w2=_normal(random, middle, features) / features**0.5,
        b2=_normal(random, middle),
        w3=_normal(random, classes, middle) / middle**0.5,
        b3=_normal(random, classes),
        groups=groups,
    )
