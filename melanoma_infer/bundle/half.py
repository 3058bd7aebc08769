"""A float32 or int8 ONNX graph → one whose float products run in half precision, and everything delicate in float32.

Convolutions, Gemm and MatMul run in fp16 (TensorRT-RTX refuses them in float32 for sm_75), and so does what merely
passes on, adds up or clips their results. Everything else keeps float32: normalisation, pooled maps, sigmoid, softplus,
softmax, and their inputs. Inputs and outputs keep their types. What is int8 stays int8, between values in fp16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_shapes
from onnx.version_converter import convert_version

from melanoma_infer.bundle.graph_edit import (
    drop_unused,
    fold_reshaped,
    name_nodes,
    refuse_inner_graphs,
    rename_input,
    sort_topologically,
    store_constants,
)
from melanoma_infer.errors import BundleError

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
FOLLOWERS = frozenset(
    {"Relu", "LeakyRelu", "Clip", "Add", "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
)
"""In half precision if all their inputs are: one more rounding, and no sum of more than two values."""
QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
OPSET = 19
"""From this version on, the scales of quantisers may be fp16."""
LARGEST = float(np.finfo(np.float16).max)
SCALE_ERROR = 2.0**-9
"""How far a scale may move when it becomes fp16: half of int8's own error of a largest value."""


def to_half(content: bytes) -> bytes:
    """Return the graph with its matrix products in fp16, topologically sorted; the same input gives the same bytes.

    Written out here, because the converters at hand (ONNX Runtime's, onnxconverter-common's) also round every value
    that passes between two nodes which are to keep float32.

    Raises:
        BundleError: a weight or scale is out of the range of fp16, or the graph cannot be converted.
    """
    model = onnx.load_model_from_string(content)
    refuse_inner_graphs(model.graph)
    if any(node.op_type in QUANTISERS for node in model.graph.node):
        model = _of_opset(model, OPSET)
        store_constants(model.graph)
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
        BundleError: it is not so, with the node that breaks the rule, or the graph is not valid.
    """
    try:
        inferred = infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(inferred)
    except (InferenceError, onnx.checker.ValidationError) as error:
        raise BundleError(
            f"The graph's types cannot be inferred ({str(error).splitlines()[0]}), so it cannot be converted to fp16. "
            "Export the model again."
        ) from error
    graph = inferred.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        if node.op_type in PRODUCTS and kinds.get(node.output[0]) != TensorProto.FLOAT16:
            raise BundleError(f"{node.name!r} ({node.op_type}) is not in half precision: TensorRT-RTX refuses it.")
    for value in graph.output:
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise BundleError(f"The output {value.name!r} is not float32.")


def _of_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in this version of ONNX's operators, if its own is older.

    Raises:
        BundleError: ONNX cannot convert it.
    """
    if all(each.version >= opset for each in model.opset_import if each.domain in ("", "ai.onnx")):
        return model
    try:
        return convert_version(model, opset)
    except RuntimeError as error:
        raise BundleError(
            f"The graph cannot be converted to opset {opset} ({str(error).splitlines()[0]}). Export it with that opset."
        ) from error


def _survives(scales: NDArray[Any]) -> bool:
    """Whether fp16 holds each of these scales."""
    exact = np.asarray(scales, np.float64)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    return bool((np.abs(half - exact) <= SCALE_ERROR * exact).all())


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
            if node.op_type in QUANTISERS:
                self._take_quantiser(node)
                continue
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

    def _take_quantiser(self, node: onnx.NodeProto) -> None:
        """Let the float side of a quantiser be fp16; a weight whose scales fp16 cannot hold is dequantised here."""
        value, scale = node.input[0], self._stored.get(node.input[1])
        if scale is None or not _survives(to_array(scale)):
            if not self._stored.keys() >= set(node.input):
                raise BundleError(
                    f"{node.name!r} ({node.op_type}) has a scale that fp16 cannot hold. Use --precision fp16 or fp32."
                )
            inputs = {name: to_array(self._stored[name]) for name in node.input}
            (values,) = ReferenceEvaluator(node).run(None, inputs)
            self._graph.initializer.append(from_array(np.asarray(values), node.output[0]))
            self._stored[node.output[0]] = self._graph.initializer[-1]
            return
        node.input[1] = self._as_type(node.input[1], TensorProto.FLOAT16)
        if node.op_type == "DequantizeLinear":
            self._half.update(node.output)
        elif value not in self._half:
            node.input[0] = self._as_type(value, TensorProto.FLOAT16)
        self._nodes.append(node)

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
