"""An ONNX graph of our own network, split before the tail that the plugins compute; the tail is proven to be ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.numpy_helper import to_array
from onnx.shape_inference import infer_shapes

from melanoma_infer.bundle.graph_edit import consumers, copied, drop_unused
from melanoma_infer.errors import EngineUnavailableError
from mminfer_export.run_onnx import load_onnx

if TYPE_CHECKING:
    from melanoma_infer.model.melanoma_net import MelanomaNet

DEPTH = "depth_mm"
TAIL = ("probabilities", "attention", "cam", "features")
"""The outputs that the tail computes from x and depth_mm."""
TOLERANCE: dict[int, float] = {onnx.TensorProto.FLOAT: 1e-4, onnx.TensorProto.FLOAT16: 2e-2}
"""The largest difference between the graph's tail and the network's, as a fraction of the output's largest value."""
PLAIN = "Omit --plugins: the plain graph runs every network."


@dataclass(frozen=True)
class Front:
    """The part of a graph that TensorRT parses."""

    content: bytes
    """The ONNX file: tiles → depth_mm and x."""
    x: str
    """The name of the backbone's feature map (N, C, h, w), the last of the file's outputs."""
    is_half: bool
    """Whether x is float16, and not float32."""


def split(content: bytes, net: MelanomaNet) -> Front:
    """The graph without its tail.

    Args:
        content: the bundle's graph, checked.
        net: the network with the bundle's weights.

    Raises:
        EngineUnavailableError: the graph's tail does not compute what the network's does, or takes more than the
            backbone's feature map and depth_mm.
    """
    model = infer_shapes(onnx.load_model_from_string(content), strict_mode=True, data_prop=True)
    values = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    missing = {DEPTH, *TAIL} - {value.name for value in model.graph.output}
    if missing:
        raise EngineUnavailableError(f"The plugins need the outputs {', '.join(sorted(missing))}. {PLAIN}")
    x = values[_feature_map(model.graph, net)]
    tail = _part(model, [x, values[DEPTH]], [values[name] for name in TAIL])
    if "tiles" in consumers(tail.graph):
        raise EngineUnavailableError(f"The tail of this graph takes more than {x.name!r} and {DEPTH!r}. {PLAIN}")
    _require_ours(tail, x, net)
    front = _part(model, list(model.graph.input), [values[DEPTH], x])
    return Front(
        front.SerializeToString(deterministic=True), x.name, x.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    )


def weights_of(net: MelanomaNet, *, is_half: bool) -> dict[str, NDArray[Any]]:
    """The plugins' weights by name, float32 but for w1_image, which has x's type."""
    tensors = {
        "weight": net.attention.weight, "bias": net.attention.bias, "w1_image": net.w1_image,
        "w1_depth": net.w1_depth, "offset": net.offset(), "w2": net.w2, "b2": net.b2, "w3": net.w3, "b3": net.b3,
        "groups": net.groups,
    }  # fmt: skip
    kinds = {"w1_image": np.float16 if is_half else np.float32}
    return {
        name: np.ascontiguousarray(tensor.detach().numpy(), kinds.get(name, np.float32))
        for name, tensor in tensors.items()
    }


def _feature_map(graph: onnx.GraphProto, net: MelanomaNet) -> str:
    """The name of the value that a 1 × 1 convolution multiplies by W1."""
    w1 = net.w1_image.detach().numpy()
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer if list(tensor.dims)[:2] == list(w1.shape)}
    names = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Unsqueeze"}
    for node in graph.node:
        weight = stored.get(names.get(node.input[1], node.input[1])) if node.op_type == "Conv" else None
        if (
            weight is not None
            and weight.size == w1.size
            and np.array_equal(weight.reshape(w1.shape), w1.astype(weight.dtype))
        ):
            return str(node.input[0])
    raise EngineUnavailableError(f"No convolution of this graph has the network's W1, so its tail is not ours. {PLAIN}")


def _part(
    model: onnx.ModelProto, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """The model between some of its values; what its inputs do not provide, it still takes from the model's own."""
    part = copied(model)
    graph = part.graph
    given = {value.name for value in inputs}
    nodes = [node for node in graph.node if not given.intersection(node.output)]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(kept)
    for field, values in (("input", inputs), ("output", outputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    drop_unused(graph)
    graph.ClearField("value_info")
    return part


def _require_ours(tail: onnx.ModelProto, x: onnx.ValueInfoProto, net: MelanomaNet) -> None:
    """Raise unless the graph's tail and the network's give the same for random feature maps and depths."""
    import torch

    kind = x.type.tensor_type
    random = np.random.default_rng(0)
    shape = [2, *(int(dim.dim_value) for dim in kind.shape.dim[1:])]
    maps = np.maximum(random.standard_normal(shape), 0).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    depth = np.array([0.4, 3.0], np.float32)
    found = load_onnx(tail.SerializeToString(), TAIL)({x.name: maps, DEPTH: depth})
    with torch.inference_mode():
        ours = net.tail(torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(depth))
    for name in TAIL:
        expected = getattr(ours, name).numpy()
        allowed = TOLERANCE[kind.elem_type] * float(np.abs(expected).max())
        if not np.abs(found[name] - expected).max() <= allowed:
            raise EngineUnavailableError(f"The tail of this graph computes other {name} than our network. {PLAIN}")
