"""The split tail as two TensorRT plugins: their tensors in TensorRT's order, their shapes and their launches.

Nothing here imports TensorRT. Tensors are named as the kernels' arguments; all are row-major (TensorRT's LINEAR) except
x, which is channels-last. N tiles, C channels, maps of h × w, P = h·w, F features, M neurons, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mminfer_kernels import attention_head, attention_project
from mminfer_kernels.errors import KernelError, KernelInputError
from mminfer_kernels.launch import Launch, Target
from mminfer_kernels.plugin_code import PluginCode, inputs_of, plugin_code
from mminfer_kernels.reference import Classifier, Projection, Tail

Shapes = Mapping[str, tuple[Any, ...]]
"""Sizes by tensor name: integers, or TensorRT's symbols for them."""
CHANNELS_MULTIPLE = 8
"""TensorRT's HWC8 pads the channels to a multiple of it, and only without padding is it channels-last."""


@dataclass(frozen=True)
class Plugin:
    """A kernel as a custom layer of a network."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """All float32."""
    batch_axis: int
    """The axis of the grid that has one program, or one row of programs, for each tile."""
    output_shapes: Callable[[Shapes], tuple[tuple[Any, ...], ...]]
    """The outputs' shapes from the inputs'."""
    plan: Callable[[Shapes, torch.dtype, Target], Launch]
    """The launch for one tile of these shapes."""

    def launch(self, shapes: Shapes, dtype: torch.dtype, target: Target) -> Launch:
        """The launch for one tile; its tensors have no memory.

        Args:
            shapes: of the inputs, with any number of tiles.
            dtype: of x and w1_image: float16 or float32.
            target: what to compile for.

        Raises:
            KernelInputError: the kernel does not take these shapes.
            KernelError: the kernel's arguments are in another order than this plugin's tensors.
        """
        launch = self.plan(shapes, dtype, target)
        if (inputs_of(launch), launch.stored) != (self.inputs, self.outputs):
            raise KernelError(f"The kernel of {self.name} takes {', '.join(launch.arguments)}, unlike the plugin.")
        return launch

    def code(self, shapes: Shapes, dtype: torch.dtype, target: Target) -> PluginCode:
        """The code of the launch; arguments and errors as `launch`, and those of `plugin_code`."""
        return plugin_code(self.launch(shapes, dtype, target), target)


def _empty(shape: tuple[Any, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(tuple(map(int, shape)), dtype=dtype, device="meta")


def _channels_last(channels: Any, height: Any, width: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """A map of one tile."""
    return _empty((1, channels, height, width), dtype).contiguous(memory_format=torch.channels_last)


def _plan_project(shapes: Shapes, dtype: torch.dtype, target: Target) -> Launch:
    _, channels, height, width = shapes["x"]
    if channels % CHANNELS_MULTIPLE:
        raise KernelInputError(f"x has {channels} channels: a plugin takes a multiple of {CHANNELS_MULTIPLE}.")
    x = _channels_last(channels, height, width, dtype)
    (launch,) = attention_project.plan(x, _empty(shapes["w1_image"], dtype), target=target).launches
    return launch


def _plan_head(shapes: Shapes, dtype: torch.dtype, target: Target) -> Launch:
    _, height, width = shapes["average"]
    (features,) = shapes["w1_depth"]
    plane = (1, height, width)
    projection = Projection(_empty(plane), _empty(plane), _channels_last(features, height, width))
    layers = {name: _empty(shapes[name]) for name in Classifier._fields if name != "depth_mm"}
    classifier = Classifier(depth_mm=_empty((1,)), **layers)
    planned = attention_head.plan(
        projection, _empty(shapes["weight"]), _empty(shapes["bias"]), classifier, target=target
    )
    (launch,) = planned.launches
    return launch


def _projection_shapes(shapes: Shapes) -> tuple[tuple[Any, ...], ...]:
    batch, _, height, width = shapes["x"]
    plane = (batch, height, width)
    return plane, plane, (batch, height * width, shapes["w1_image"][0])


def _head_shapes(shapes: Shapes) -> tuple[tuple[Any, ...], ...]:
    batch, height, width = shapes["average"]
    (features,), (classes,) = shapes["w1_depth"], shapes["b3"]
    return (
        (batch, 3, features), (batch, classes), (batch, height, width), (batch, 3, height, width), (batch, features),
    )  # fmt: skip


PROJECT = Plugin(
    name="attention_project",
    inputs=("x", "w1_image"),
    outputs=Projection._fields,
    batch_axis=1,
    output_shapes=_projection_shapes,
    plan=_plan_project,
)
"""x (N, C, h, w) and w1_image (F, C) in x's dtype → average and maximum (N, h, w), projected (N, P, F)."""
HEAD = Plugin(
    name="attention_head",
    inputs=(*Projection._fields, "weight", "bias", *Classifier._fields),
    outputs=("gradients", *Tail._fields),
    batch_axis=0,
    output_shapes=_head_shapes,
    plan=_plan_head,
)
"""What `attention_project` gives, and float32 weights as in the reference → the reference's outputs (`Tail`), after
gradients (N, 3, F), the memory through which the kernel passes them."""
PLUGINS = (PROJECT, HEAD)
