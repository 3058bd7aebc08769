"""Which ONNX graphs a runtime may be given.

One input ``tiles`` uint8 (N, tile_px, tile_px, 3); ``probabilities`` float32 (N, K); the card's optional outputs. Only
operators of the default domain, all data inside the file (runtimes read external data from the current folder even
when they are given bytes), finite weights, and no operator that draws random numbers or trains: its answer for a tile
would change from run to run, or with the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError

if TYPE_CHECKING:
    import onnx

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
AGAIN = "Export the model again with `plain` operators, as docs/bundle.md describes."


def check_graph(content: bytes, card: ModelCard) -> None:
    """Require that these bytes are an ONNX model that may run for this card.

    Raises:
        BundleError: they are not; the message gives the first reason found.
    """
    from onnx import TensorProto

    graph = self_contained_model(content).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if [value.name for value in inputs] != ["tiles"]:
        raise BundleError(f"The ONNX file must have one input, `tiles`. {AGAIN}")
    is_uint8 = inputs[0].type.tensor_type.elem_type == TensorProto.UINT8
    if not is_uint8 or _shape(inputs[0])[1:] != [card.tile_px, card.tile_px, 3]:
        raise BundleError(f"The ONNX file: `tiles` must be uint8 (N, {card.tile_px}, {card.tile_px}, 3). {AGAIN}")
    outputs = {value.name: value for value in graph.output}
    if set(outputs) != {"probabilities", *card.outputs}:
        raise BundleError(f"The ONNX file's outputs {sorted(outputs)} are not those named in the card. {AGAIN}")
    if _shape(outputs["probabilities"])[1:] not in ([len(card.classes)], [None]):
        raise BundleError(f"The ONNX file: `probabilities` must have {len(card.classes)} columns. {AGAIN}")
    check_valid(content)


def self_contained_model(content: bytes) -> onnx.ModelProto:
    """The ONNX model in these bytes, of any interface: plain operators for inference, all data inside, finite weights.

    Raises:
        BundleError: it is not; the message gives the first reason found.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, numpy_helper

    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise BundleError(f"The ONNX file cannot be parsed. {AGAIN}") from error
    domains = {opset.domain for opset in model.opset_import} | {node.domain for node in nodes_of(model.graph)}
    if foreign := sorted(domains - {"", "ai.onnx"}):
        raise BundleError(f"The ONNX file uses operators of another domain ({foreign[0]!r}). {AGAIN}")
    if model.functions or model.training_info:
        raise BundleError(f"The ONNX file holds local functions or training information. {AGAIN}")
    for tensor in stored_tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(f"The ONNX file keeps {tensor.name!r} in another file. Save it with its data inside.")
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"The ONNX file: tensor {tensor.name!r} is damaged. {AGAIN}") from error
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise BundleError(
                f"The ONNX file: {tensor.name!r} holds NaN or infinite values. The model cannot be trusted."
            )
    _check_inference_only(model.graph)
    return model


def check_valid(content: bytes) -> None:
    """Require that the ONNX model in these bytes is valid by ONNX's own checker.

    Raises:
        BundleError: it is not.
    """
    import onnx

    try:
        onnx.checker.check_model(content)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise BundleError(f"The ONNX file is not valid: {str(error).splitlines()[0]} {AGAIN}") from error


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of the graph, and of the graphs within."""
    for node in graph.node:
        yield node
        for inner in _inner_graphs(node):
            yield from nodes_of(inner)


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def stored_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that is stored in the graph, in its attributes and in the graphs within."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (
                *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                *attribute.sparse_tensors,
            ):
                yield from (sparse.values, sparse.indices)
        for inner in _inner_graphs(node):
            yield from stored_tensors(inner)


def _check_inference_only(graph: onnx.GraphProto) -> None:
    nodes = list(nodes_of(graph))
    makers = {name: node for node in nodes for name in node.output if name}
    stored = {tensor.name: tensor for tensor in stored_tensors(graph)}
    for node in nodes:
        if node.op_type in RANDOM:
            raise BundleError(
                f"The ONNX file draws random numbers ({node.op_type}). Call model.eval() and export again."
            )
        if _trains(node, makers, stored):
            raise BundleError(
                f"The ONNX file holds {node.op_type} in training mode. Call model.eval() before the export; functional "
                "calls, such as F.dropout, need training=self.training."
            )


def _trains(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], stored: dict[str, onnx.TensorProto]) -> bool:
    """Whether a BatchNormalization or Dropout is in training mode, or may be."""
    if node.op_type == "BatchNormalization":
        asked = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        return asked or len([name for name in node.output if name]) > 1  # the running statistics
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    flag = node.input[2]
    while flag in makers and makers[flag].op_type in ("Identity", "Cast"):
        flag = makers[flag].input[0]
    if flag in makers and makers[flag].op_type == "Constant":
        return any(
            _is_true(each.t) if each.HasField("t") else bool(each.i or each.f) for each in makers[flag].attribute
        )
    return flag not in stored or _is_true(stored[flag])


def _is_true(tensor: onnx.TensorProto) -> bool:
    from onnx import numpy_helper

    return bool(numpy_helper.to_array(tensor).any())


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """Dimensions of a graph input or output; None for a dynamic one."""
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
