"""A process of its own: registers the plugins with NVIDIA's bindings and prints, as JSON, what TensorRT would be told.

The bindings are real; their C++ library is a stub (test_tensorrt_plugins.py), so this drives the plugins' Python
objects as the library would, for 5 tiles. Only what the library makes is drawn: symbolic sizes, and a network.
"""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import tensorrt_bindings as trt
from bindings_signatures_for_tests import fits, signatures

sys.modules["tensorrt"] = trt
from mminfer_export.plugin_tail import Front  # noqa: E402
from mminfer_export.tensorrt_plugins import add_tail, registered  # noqa: E402
from mminfer_kernels.plugins import HEAD, PLUGINS, PROJECT  # noqa: E402

OURS = registered(trt)
import tensorrt.plugin as trtp  # noqa: E402
from tensorrt.plugin import _lib  # noqa: E402
from tensorrt.plugin._tensor import SymIntExpr  # noqa: E402

TILES, TARGET = 5, 89
SHAPES = {
    "x": (-1, 64, 7, 7), "w1_image": (128, 64), "average": (-1, 7, 7), "maximum": (-1, 7, 7),
    "projected": (-1, 49, 128), "weight": (1, 2, 7, 7), "bias": (1,), "depth_mm": (-1,), "w1_depth": (128,),
    "offset": (128,), "w2": (64, 128), "b2": (64,), "w3": (4, 64), "b3": (4,), "groups": (6, 4),
}  # fmt: skip


class Size(trt.IDimensionExpr):
    """A symbolic size whose value for 5 tiles is known."""

    @classmethod
    def of(cls, value, *, constant=True):
        size = cls.__new__(cls)  # the bindings give the library alone a constructor
        size.value, size.constant = value, constant
        return size

    def is_constant(self):
        return self.constant

    def get_constant_value(self):
        return self.value


class Sizes:
    """What computes with symbolic sizes."""

    def constant(self, value):
        return Size.of(value)

    def operation(self, op, first, second):
        assert op == trt.DimensionOperation.PROD
        return Size.of(first.value * second.value, constant=first.constant and second.constant)


def descriptions(plugin, dtype):
    """The inputs as TensorRT describes them to a plugin: symbolic sizes, and types."""
    described = []
    for name in plugin.inputs:
        shape = SHAPES[name]
        symbols = [Size.of(TILES, constant=False) if size == -1 else Size.of(size) for size in shape]
        exprs = trtp.ShapeExprs.from_tuple(tuple(map(trtp.ShapeExpr, symbols)))
        described.append(trtp.TensorDesc(exprs, dtype if name in ("x", "w1_image") else trt.DataType.FLOAT))
    return described


def new_plugin(plugin):
    """The plugin as the bindings' own creator makes it for an ahead-of-time build."""
    fields = trt.PluginFieldCollection([trt.PluginField("sm", np.array([TARGET]), trt.PluginFieldType.INT64)])
    creator = _lib._TemplatePluginCreator(plugin.name, "mminfer", {"sm": (True, int)})
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    return creator.create_plugin(plugin.name, "mminfer", fields, trt.TensorRTPhase.BUILD, request)


def told(plugin, dtype):
    """What the library would get for a plugin; dtype is that of x and w1_image."""
    layer, sizes = new_plugin(plugin), Sizes()
    inputs = descriptions(plugin, dtype)
    types = layer.get_output_data_types([each.dtype for each in inputs], [each.ndim for each in inputs])
    SymIntExpr._exprBuilder = sizes
    outputs = list(layer.register_function(*inputs, **layer.attrs))
    layer.input_descs, layer.output_descs = inputs, outputs
    shapes = {
        name: [size._expr.value for size in each.shape_expr] for name, each in zip(plugin.outputs, outputs, strict=True)
    }
    in_out = []
    for each in (*inputs, *outputs):
        known = trt.DynamicPluginTensorDesc()
        known.desc.dims = trt.Dims([size._expr.value if size._expr.constant else -1 for size in each.shape_expr])
        known.desc.type, known.desc.format = each.dtype, trt.TensorFormat.LINEAR
        in_out.append(known)
    formats = layer.get_supported_format_combinations(in_out, len(inputs))
    for known, chosen in zip(in_out, formats, strict=True):
        known.desc.type, known.desc.format = chosen.type, chosen.format
    layer.configure_plugin(in_out[: len(inputs)], in_out[len(inputs) :])
    assert layer.get_valid_tactics() == []
    entry, ptx, launch, extra = layer.aot_impl_function(*inputs, *layer.attrs.values(), outputs, 0)
    assert isinstance(launch, trtp.KernelLaunchParams)
    assert isinstance(extra, trtp.SymExprs)
    numbers = {name: getattr(launch, name)._expr.value for name in vars(launch)}
    header = ptx[: ptx.index("{")]
    return {
        "types": [each.name for each in types], "shapes": shapes, "entry": entry, "launch": numbers,
        "formats": [[each.type.name, each.format.name] for each in formats], "extra": len(extra),
        "parameters": len(re.findall(r"\.param\s", header)), "target": re.search(r"\.target (\w+)", ptx)[1],
        "aliased": [layer.get_aliased_input(place) for place in range(layer.get_num_outputs())],
    }  # fmt: skip


class Network:
    """A network whose calls are those that the bindings document."""

    def __init__(self):
        self.layers, self.outputs = [], [Tensor("depth_mm"), Tensor("relu_48")]
        self.num_outputs = len(self.outputs)

    def _check(self, name, *args):
        overloads = signatures(getattr(trt.INetworkDefinition, name).__doc__, name)
        assert any(fits(each, args) for each in overloads), (name, args, overloads)

    def get_output(self, index):
        self._check("get_output", index)
        return self.outputs[index]

    def unmark_output(self, tensor):
        self._check("unmark_output", tensor)
        self.outputs.remove(tensor)

    def mark_output(self, tensor):
        self._check("mark_output", tensor)
        self.outputs.append(tensor)

    def add_constant(self, shape, weights):
        self._check("add_constant", shape, weights)
        assert weights.size == np.prod(shape)
        return Layer(1)

    def add_plugin(self, make, aot):
        self._check("add_plugin", make, aot)
        tensors = make.__closure__[[*make.__code__.co_freevars].index("input_tensors")].cell_contents
        name = make.__closure__[[*make.__code__.co_freevars].index("name")].cell_contents
        self.layers.append([name, aot, [each.name for each in tensors]])
        return Layer(len({each.name: each for each in PLUGINS}[name].outputs))


class Tensor:
    """A tensor of the drawn network, which the bindings take for theirs."""

    def __init__(self, name):
        self.name = name


class Layer:
    """A layer of the drawn network; its outputs are named after it until they get names of their own."""

    def __init__(self, count):
        self.outputs = [Tensor("") for _ in range(count)]

    def __setattr__(self, key, value):
        super().__setattr__(key, value)
        if key == "name":
            for place, tensor in enumerate(self.outputs):
                tensor.name = f"{value}:{place}"

    def get_output(self, index):
        return self.outputs[index]


Tensor.__name__ = "ITensor"


def network():
    """The layers that the tail adds, and the network's outputs afterwards."""
    trt.ITensor = Tensor  # the plugins' factory accepts nothing else
    _lib.trt.get_plugin_registry = lambda: type(
        "Registry", (), {"register_creator": lambda self, *_: True, "get_creator": lambda self, *_: object()}
    )()
    weights = {
        name: np.zeros(SHAPES[name], np.float16 if name == "w1_image" else np.float32)
        for name in (*PROJECT.inputs, *HEAD.inputs)
        if name not in ("x", "depth_mm", *PROJECT.outputs)
    }
    drawn = Network()
    add_tail(trt, drawn, Front(b"", "relu_48", is_half=True), weights, TARGET)
    return {"layers": drawn.layers, "outputs": [tensor.name for tensor in drawn.outputs]}


if __name__ == "__main__":
    assert registered(trt) is OURS  # once in a process, however many engines are built
    half, single = trt.DataType.HALF, trt.DataType.FLOAT
    result = {
        "version": trt.__version__,
        "registered": sorted(_lib.QDP_REGISTRY),
        "project fp16": told(PROJECT, half),
        "project fp32": told(PROJECT, single),
        "head": told(HEAD, single),
        "network": network(),
    }
    sys.stdout.write(json.dumps(result))
