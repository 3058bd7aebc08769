"""A float32 ONNX graph → one whose matrix products run in half precision, and everything delicate in float32.

Convolutions, Gemm and MatMul run in fp16 (TensorRT-RTX refuses them in float32 for sm_75), and so does what merely
passes on, adds up or clips their results. Everything else keeps float32: normalisation, pooled maps, sigmoid, softplus,
softmax, and their inputs. Inputs and outputs keep their types.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array
from onnx.shape_inference import infer_shapes

from melanoma_infer.errors import BundleError
from mminfer_export.graph_edit import (
    drop_unused,
    fold_reshaped,
    name_nodes,
    refuse_inner_graphs,
    rename_input,
    sort_topologically,
)

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
FOLLOWERS = frozenset(
    {"Relu", "LeakyRelu", "Clip", "Add", "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
)
"""In half precision if all their inputs are: one more rounding, and no sum of more than two values."""
LARGEST = float(np.finfo(np.float16).max)


def to_half(content: bytes) -> bytes:
    """Return the graph with its matrix products in fp16, topologically sorted; the same input gives the same bytes.

    Written out here, because the converters at hand (ONNX Runtime's, onnxconverter-common's) also round every value
    that passes between two nodes which are to keep float32.

    Raises:
        BundleError: a weight exceeds the range of fp16, or the graph cannot be converted.
    """
    model = onnx.load_model_from_string(content)
    refuse_inner_graphs(model.graph)
    name_nodes(model.graph)
    sort_topologically(model.graph)
    fold_reshaped(model.graph)
    _Conversion(model.graph).run()
    drop_unused(model.graph)
    model.graph.ClearField("value_info")
    check_half(model)
    return bytes(model.SerializeToString(deterministic=True))


def check_half(model: onnx.ModelProto) -> None:
    """Raise unless every matrix product is fp16 and the outputs are float32.

    Raises:
        BundleError: it is not so, with the node that breaks the rule.
    """
    inferred = infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(inferred)
    graph = inferred.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        if node.op_type in PRODUCTS and kinds.get(node.output[0]) != TensorProto.FLOAT16:
            raise BundleError(f"{node.name!r} ({node.op_type}) is not in half precision: TensorRT-RTX refuses it.")
    for value in graph.output:
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise BundleError(f"The output {value.name!r} is not float32.")


class _Conversion:
    """One pass over a sorted graph: each value is cast at most once to either type, where a node needs it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._half: set[str] = set()
        """Values that are fp16."""
        self._casts: set[tuple[str, int]] = set()
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Convert the graph in place."""
        for node in self._graph.node:
            computed = [name for name in node.input if name and name not in self._stored]
            followed = node.op_type in FOLLOWERS and computed and self._half.issuperset(computed)
            if node.op_type in PRODUCTS or followed:
                self._take(node, TensorProto.FLOAT16)
                self._half.update(node.output)
            else:
                self._take(node, TensorProto.FLOAT)
            self._nodes.append(node)
        for value in self._graph.output:
            self._restore(value.name)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        self._graph.ClearField("node")
        self._graph.node.extend(copies)

    def _take(self, node: onnx.NodeProto, kind: int) -> None:
        """Let the node take all its floating-point inputs in this type."""
        half = kind == TensorProto.FLOAT16
        for place, name in enumerate(node.input):
            if name in self._stored:
                if half and self._stored[name].data_type == TensorProto.FLOAT:
                    node.input[place] = self._as_type(name, kind)
            elif name and half != (name in self._half):
                node.input[place] = self._as_type(name, kind)

    def _as_type(self, name: str, kind: int) -> str:
        """The name of a value in this type: a stored tensor's copy, or a cast where the value is first taken."""
        other = f"{name}_{'half' if kind == TensorProto.FLOAT16 else 'float'}"
        if (name, kind) in self._casts:
            return other
        if name in self._stored:
            values = to_array(self._stored[name])
            if (largest := float(np.abs(values).max(initial=0.0))) > LARGEST:
                raise BundleError(
                    f"{name!r} holds {largest:.3g}, but fp16 ends at {LARGEST:g}. Keep fp32, or use int8."
                )
            self._graph.initializer.append(from_array(values.astype(np.float16), other))
        else:
            self._nodes.append(helper.make_node("Cast", [name], [other], name=f"cast_{other}", to=kind))
        self._casts.add((name, kind))
        return other

    def _restore(self, output: str) -> None:
        """Let an output of the graph be float32 again, under its own name."""
        if output not in self._half:
            return
        inner = f"{output}_as_half"
        for node in self._nodes:
            rename_input(node, output, inner)
            for place, name in enumerate(node.output):
                if name == output:
                    node.output[place] = inner
        self._nodes.append(helper.make_node("Cast", [inner], [output], name=f"cast_{output}", to=TensorProto.FLOAT))
