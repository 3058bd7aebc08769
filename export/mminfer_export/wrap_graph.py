"""A model's ONNX graph → the bundle's graph: normalisation and softmax, where missing, are added as plain nodes.

float NCHW images:  tiles ─ Cast ─ Transpose ─ Div 255 ─ Sub mean ─ Div std ─ the model ─ (Softmax) ─ probabilities
float NHWC images:  the same without Transpose
uint8 NHWC tiles:   tiles ─ Cast ─ the model ─ (Softmax) ─ probabilities
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import UsageError
from mminfer_export.cast_first import cast_first
from mminfer_export.interface import TO_NCHW, Interface
from mminfer_export.scores import Kind

OPSET_MIN = 13
PREFIX = "model/"
"""Before every name of the model's, so that none meets one of ours."""
MEAN, STD, WHITE = "normalise/mean", "normalise/std", "normalise/white"


def wrapped(model: onnx.ModelProto, found: Interface, card: ModelCard, scores: Kind, *, batch: int | None) -> bytes:
    """Return the bundle's graph, of input `tiles` and output `probabilities`.

    Args:
        model: that was checked (`graph_checks.self_contained_model`).
        found: its interface.
        card: its mean and std are written into the graph of a model that takes float images.
        scores: what the model gives: logits get a softmax, one logit a sigmoid, one probability its complement.
        batch: None: any number of tiles; a model that is fixed to one gets 1.

    Raises:
        UsageError: the model's operators are older than opset 13.
        BundleError: it cannot be put together.
    """
    if (opset := next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)) < OPSET_MIN:
        raise UsageError(f"The ONNX file is of opset {opset}. Export it with opset {OPSET_MIN} or newer, best 18.")
    kept = set(card.outputs)
    inner = compose.add_prefix(model, PREFIX).graph
    tiles = helper.make_tensor_value_info("tiles", TensorProto.UINT8, [batch or "batch", card.tile_px, card.tile_px, 3])
    first = batch or "batch"
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [first, len(card.classes)])]
    for value in (each for each in model.graph.output if each.name in kept):
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        copy.type.tensor_type.shape.dim[0].Clear()
        setattr(copy.type.tensor_type.shape.dim[0], "dim_value" if batch else "dim_param", first)
        outputs.append(copy)
    outer = helper.make_graph([], "tiles_to_probabilities", [tiles], outputs)
    outer.initializer.extend(inner.initializer)
    outer.sparse_initializer.extend(inner.sparse_initializer)
    before, images = _before(outer, found, card)
    after = _after(outer, found, scores, len(card.classes))
    renamed = {PREFIX + found.input: images} | {PREFIX + name: name for name in kept}
    outer.node.extend([*before, *(_renamed(node, renamed) for node in inner.node), *after])
    made = helper.make_model(outer, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    forget_origin(made)
    cast_first(made.graph)
    return bytes(made.SerializeToString(deterministic=True))


def _before(outer: onnx.GraphProto, found: Interface, card: ModelCard) -> tuple[list[onnx.NodeProto], str]:
    """The nodes from `tiles` to the model's input, and the name of that input."""
    if found.layout == "uint8-nhwc":
        return [], "tiles"
    last = found.layout == "float-nhwc"
    for name, value in ((WHITE, [255.0]), (MEAN, card.mean), (STD, card.std)):
        array = np.array(value, np.float32)
        shape = array.shape if last or len(array) == 1 else (-1, 1, 1)
        outer.initializer.append(numpy_helper.from_array(array.reshape(shape), name))
    turned = "tiles/float" if last else "tiles/nchw"
    transpose = helper.make_node("Transpose", ["tiles/float"], [turned], "tiles/Transpose", perm=TO_NCHW)
    return [
        helper.make_node("Cast", ["tiles"], ["tiles/float"], "tiles/Cast", to=TensorProto.FLOAT),
        *([] if last else [transpose]),
        helper.make_node("Div", [turned, WHITE], ["tiles/unit"], "tiles/Div"),
        helper.make_node("Sub", ["tiles/unit", MEAN], ["tiles/centred"], "tiles/Sub"),
        helper.make_node("Div", ["tiles/centred", STD], ["images"], "images/Div"),
    ], "images"


def _after(outer: onnx.GraphProto, found: Interface, scores: Kind, classes: int) -> list[onnx.NodeProto]:
    """The nodes from the model's scores to `probabilities`."""
    given, nodes = PREFIX + found.scores, []
    one = scores.startswith("one-")
    if not found.has_rank_2:
        shape = np.array([-1, 1 if one else classes], np.int64)
        outer.initializer.append(numpy_helper.from_array(shape, "rows"))
        nodes.append(helper.make_node("Reshape", [given, "rows"], ["scores"], "scores/Reshape"))
        given = "scores"
    if not one:
        kind = "Softmax" if scores == "logits" else "Identity"
        nodes.append(helper.make_node(kind, [given], ["probabilities"], f"probabilities/{kind}"))
        if scores == "logits":
            nodes[-1].attribute.append(helper.make_attribute("axis", 1))
        return nodes
    outer.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    second = "second" if scores == "one-logit" else given
    if scores == "one-logit":
        nodes.append(helper.make_node("Sigmoid", [given], [second], "probabilities/Sigmoid"))
    return [
        *nodes,
        helper.make_node("Sub", ["one", second], ["first"], "probabilities/Sub"),
        helper.make_node("Concat", ["first", second], ["probabilities"], "probabilities/Concat", axis=1),
    ]


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """The node with other names for its inputs and outputs, within the graphs of its branches too."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                _renamed(inner, names)
    return node


def forget_origin(model: onnx.ModelProto) -> None:
    """Remove the stack traces, with paths of the author's machine, that exporters write into a model."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
