"""The kernels of the tail as ahead-of-time plugins of TensorRT: registered once, then layers of a network.

TensorRT takes a kernel's PTX into the engine, so an engine with plugins runs without this package, Triton and PyTorch.
Built from the bindings of TensorRT 11.4 and tested against them; no engine with plugins has been built or run yet.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from types import GenericAlias
from typing import Any

import torch
from numpy.typing import NDArray

from melanoma_infer.engines.tensorrt_api import Api
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.runtime.cache import cache_folder
from mminfer_export.plugin_tail import DEPTH, TAIL, Front
from mminfer_kernels.launch import TARGETS
from mminfer_kernels.plugins import HEAD, PLUGINS, PROJECT, Plugin

OLDEST = (10, 9)
"""The first TensorRT with ahead-of-time plugins."""
NAMESPACE = "mminfer"
FORMATS = {"HALF": ("FP16", "HWC8"), "FLOAT": ("FP32", "HWC")}
"""x's type and its channels-last format in TensorRT's words, by the name of its DataType."""


def require_plugins(api: Api, target: str) -> int:
    """The number of the GPU's target, 89 for "sm89", if this TensorRT takes plugins and our kernels fit the GPU.

    Raises:
        EngineUnavailableError: one of them does not.
    """
    if api.is_rtx:
        raise EngineUnavailableError("TensorRT-RTX has no plugins. Omit --plugins, or use --to tensorrt.")
    version = tuple(int(part) for part in api.version.split(".")[:2])
    if version < OLDEST:
        raise EngineUnavailableError(
            f"TensorRT {api.version} has no ahead-of-time plugins; they came with {OLDEST[0]}.{OLDEST[1]}. Install a "
            "newer one (pip install 'mminfer[tensorrt]'), or omit --plugins."
        )
    number = int(target.removeprefix("sm"))
    if number not in TARGETS:  # PTX for one of the newer targets runs on no other
        raise EngineUnavailableError(
            f"The plugins are compiled for {', '.join(f'sm{sm}' for sm in TARGETS)}, not for {target}. Omit --plugins."
        )
    return number


@cache
def registered(trt: Any) -> Any:
    """The namespace `tensorrt.plugin.op.mminfer` with both plugins, in which TensorRT finds them by name.

    TensorRT registers a name once in a process.
    """
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder("triton")))  # nothing is written to the home folder
    trtp = _plugin_module(trt)
    for plugin in PLUGINS:
        _register(plugin, trt, trtp)
    return getattr(trtp.op, NAMESPACE)


def add_tail(trt: Any, network: Any, front: Front, weights: Mapping[str, NDArray[Any]], sm: int) -> None:
    """Add the tail to a parsed network of the front: two plugins, and the network's outputs.

    Args:
        trt: the module `tensorrt`.
        network: its outputs are depth_mm and x; afterwards depth_mm and those of `TAIL`.
        front: what was parsed.
        weights: of `plugin_tail.weights_of`; they must live until the engine is built.
        sm: the GPU's target.

    Raises:
        EngineUnavailableError: TensorRT rejects a plugin.
    """
    plugins = registered(trt)
    tensors = {tensor.name: tensor for tensor in map(network.get_output, range(network.num_outputs))}
    tensors = {"x": tensors[front.x], DEPTH: tensors[DEPTH]}
    network.unmark_output(tensors["x"])
    for name, array in weights.items():
        layer = network.add_constant(array.shape, trt.Weights(array))
        layer.name = f"{NAMESPACE}/{name}"
        tensors[name] = layer.get_output(0)
    for plugin in (PROJECT, HEAD):
        make = getattr(plugins, plugin.name)
        layer = network.add_plugin(make(*(tensors[name] for name in plugin.inputs), sm=sm), True)
        if layer is None:
            raise EngineUnavailableError(f"TensorRT rejects the plugin {plugin.name}. Omit --plugins.")
        layer.name = f"{NAMESPACE}/{plugin.name}"
        tensors |= {name: layer.get_output(place) for place, name in enumerate(plugin.outputs)}
    for name in TAIL:
        tensors[name].name = name
        network.mark_output(tensors[name])


class _Silent:
    """A logger that drops its messages."""

    WARNING = None

    def log(self, severity: Any, text: str) -> None:
        """Do nothing."""


def _plugin_module(trt: Any) -> Any:
    """The module `tensorrt.plugin`. Imported as it is, it prints that it is experimental, on stdout, before --json."""
    logger, trt.Logger = trt.Logger, _Silent
    try:
        return import_module("tensorrt.plugin")
    finally:
        trt.Logger = logger


def _register(plugin: Plugin, trt: Any, trtp: Any) -> None:
    """Give TensorRT the three functions of a plugin; it reads their signatures, so they are written out."""
    dtypes = {trt.DataType.HALF: torch.float16, trt.DataType.FLOAT: torch.float32}

    def describe(*inputs: Any, sm: int) -> tuple[Any, ...]:
        shapes = {name: tuple(each.shape_expr) for name, each in zip(plugin.inputs, inputs, strict=True)}
        exprs = map(trtp.ShapeExprs.from_tuple, plugin.output_shapes(shapes))
        return tuple(trtp.TensorDesc(each, trt.DataType.FLOAT) for each in exprs)

    def formats(*tensors: Any) -> list[Any]:
        *inputs, _outputs = tensors
        kind, layout = FORMATS[inputs[0].dtype.name]
        ours = {"x": (kind, layout), "w1_image": (kind, "LINEAR")}
        pairs = [ours.get(name, ("FP32", "LINEAR")) for name in (*plugin.inputs, *plugin.outputs)]
        return [trtp.AutoTuneCombination(*(", ".join(words) for words in zip(*pairs, strict=True)))]

    def kernel(*tensors: Any) -> tuple[str, str, Any, Any]:
        *inputs, sm, _outputs, _tactic = tensors
        shapes = {name: tuple(each.shape) for name, each in zip(plugin.inputs, inputs, strict=True)}
        of_one_tile = (shapes, dtypes[inputs[0].dtype], TARGETS[sm])
        launch, code = plugin.launch(*of_one_tile), plugin.code(*of_one_tile)
        params = trtp.KernelLaunchParams()
        grid: list[Any] = list(launch.grid)
        grid[plugin.batch_axis] = inputs[0].shape_expr[0]
        params.grid_x, params.grid_y, params.grid_z = grid
        params.block_x, params.shared_mem = code.threads, code.shared_bytes
        return code.entry, code.ptx, params, trtp.SymIntExprs(0)

    name, number = f"{NAMESPACE}::{plugin.name}", {"sm": int}
    inputs = dict.fromkeys(plugin.inputs, trtp.TensorDesc)
    described = GenericAlias(tuple, (trtp.TensorDesc,) * len(plugin.outputs))
    # Registered with TensorRT when a network first takes it, and described now.
    trtp.register(name, lazy_register=True)(_signed(describe, inputs | number, described))
    trtp.autotune(name)(_signed(formats, inputs | _unstated(["outputs"]), list[trtp.AutoTuneCombination]))
    returned = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]
    trtp.aot_impl(name)(_signed(kernel, inputs | number | _unstated(["outputs", "tactic"]), returned))


def _unstated(names: Sequence[str]) -> dict[str, Any]:
    return dict.fromkeys(names, inspect.Parameter.empty)


def _signed(function: Any, parameters: Mapping[str, Any], returned: Any) -> Any:
    """The function, with the parameters by name and annotation that TensorRT shall see."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters.items()]
    function.__signature__ = inspect.Signature(listed, return_annotation=returned)
    return function
