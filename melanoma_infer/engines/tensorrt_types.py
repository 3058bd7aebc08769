"""Checks that a network that TensorRT parsed has the types of its ONNX graph.

The parser silently replaces types that it does not support: it turns UINT8 zero points into INT8 with only a warning,
and the engine then builds but computes wrong numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from melanoma_infer.errors import BundleError

if TYPE_CHECKING:
    import onnx

MUST_BE_FOUND = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "QuantizeLinear", "DequantizeLinear"})
"""Operators whose output must be in the network under its own name; otherwise its type could not be compared."""


def check_types(trt: Any, network: Any, model: onnx.ModelProto) -> None:
    """Raise unless every tensor of the network that the ONNX graph names has the graph's type.

    Raises:
        BundleError: a type differs, or the output of a matrix product or quantiser is not found.
    """
    expected = types_of(trt, model)
    found: dict[str, Any] = {}
    for name, kind in tensors_of(trt, network):
        found.setdefault(name, kind)
        if name in expected and kind != expected[name]:
            raise BundleError(
                f"{name!r} is {_word(expected[name])} in the graph, but {_word(kind)} in the parsed network, so the "
                "numbers would be wrong. Quantise with int8 zero points of 0: mminfer export BUNDLE --to onnx "
                "--precision int8 --out NEW.mminfer."
            )
    for node in model.graph.node:
        if node.op_type in MUST_BE_FOUND and node.output[0] not in found:
            raise BundleError(
                f"The output {node.output[0]!r} of a {node.op_type} is missing from the parsed network, so its type "
                "cannot be checked. Export the model again."
            )


def types_of(trt: Any, model: onnx.ModelProto) -> Mapping[str, Any]:
    """TensorRT's type for each value and stored tensor whose ONNX type is known; None if TensorRT has no such type."""
    from onnx import TensorProto
    from onnx.shape_inference import infer_shapes

    kinds = {
        TensorProto.FLOAT: trt.DataType.FLOAT,
        TensorProto.FLOAT16: trt.DataType.HALF,
        TensorProto.BFLOAT16: trt.DataType.BF16,
        TensorProto.INT8: trt.DataType.INT8,
        TensorProto.UINT8: trt.DataType.UINT8,
        TensorProto.INT32: trt.DataType.INT32,
        TensorProto.INT64: trt.DataType.INT64,
        TensorProto.BOOL: trt.DataType.BOOL,
    }
    graph = infer_shapes(model, data_prop=False).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: kinds.get(kind) for name, kind in (values | stored).items() if kind}


def tensors_of(trt: Any, network: Any) -> Iterator[tuple[str, Any]]:
    """Name and type of each input, layer output, stored tensor (its constant layer has its name) and output."""
    for index in range(network.num_inputs):
        yield network.get_input(index).name, network.get_input(index).dtype
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            yield tensor.name, tensor.dtype
            if layer.type == trt.LayerType.CONSTANT:
                yield layer.name, tensor.dtype
    for index in range(network.num_outputs):
        yield network.get_output(index).name, network.get_output(index).dtype


def _word(kind: Any) -> str:
    return "of a type that TensorRT does not support" if kind is None else str(kind).rpartition(".")[2].lower()
