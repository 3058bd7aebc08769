"""A model's ONNX graph → the bundle's graph: normalisation and softmax, where missing, are added as plain nodes.

float NCHW images:  tiles ─ Cast ─ Transpose ─ Div 255 ─ Sub mean ─ Div std ─ the model ─ (Softmax) ─ probabilities
uint8 NHWC tiles:   tiles ─ the model, which must begin with Cast ─ (Softmax) ─ probabilities
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, UsageError

OPSET_MIN = 13
PREFIX = "model/"
"""Before every name of the model's, so that none meets one of ours."""
MEAN, STD, WHITE = "normalise/mean", "normalise/std", "normalise/white"

Scores = Literal["logits", "one-logit", "probabilities"]
"""What a model gives: (N, K) logits; (N, 1), the logit of the second of two classes; (N, K) probabilities."""


@dataclass(frozen=True)
class Interface:
    """What a model's graph takes and gives, by the names in its file."""

    input: str
    layout: Literal["float-nchw", "uint8-nhwc"]
    scores: str
    ends_with_softmax: bool


def interface_of(model: onnx.ModelProto, card: ModelCard) -> Interface:
    """The model's one image input, and the output that holds the classes.

    Raises:
        BundleError: it has another interface than one of the two above, or does not fit the card.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise BundleError(f"The ONNX file has {len(inputs)} inputs; only tiles can be fed. Export it with one.")
    outputs = {value.name for value in graph.output}
    if missing := sorted(set(card.outputs) - outputs):
        raise BundleError(f"The card names the output {missing[0]!r}, which the ONNX file lacks. Correct the card.")
    scores = [value.name for value in graph.output if value.name not in card.outputs]
    if len(scores) != 1:
        raise BundleError(
            f"The ONNX file has the outputs {sorted(outputs)}. Export it with one, the classes' scores (N, K), beside "
            "those that the card's `outputs` names."
        )
    last = next((node for node in graph.node if scores[0] in node.output), None)
    ends_with_softmax = last is not None and last.op_type == "Softmax"
    return Interface(inputs[0].name, _layout(inputs[0], graph, card), scores[0], ends_with_softmax)


def _layout(value: onnx.ValueInfoProto, graph: onnx.GraphProto, card: ModelCard) -> Literal["float-nchw", "uint8-nhwc"]:
    kind = value.type.tensor_type
    sides = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    side = card.tile_px

    def fits(*wanted: int) -> bool:
        return len(sides) == 4 and all(found in (None, want) for found, want in zip(sides[1:], wanted, strict=True))

    if kind.elem_type == TensorProto.FLOAT and fits(3, side, side):
        return "float-nchw"
    if kind.elem_type == TensorProto.UINT8 and fits(side, side, 3):
        if any(node.op_type != "Cast" for node in graph.node if value.name in node.input):
            raise BundleError("The ONNX file must begin with Cast, then Transpose. TensorRT-RTX transposes no uint8.")
        return "uint8-nhwc"
    name = TensorProto.DataType.Name(kind.elem_type).lower()
    raise BundleError(
        f"The ONNX file takes {name} {['N', *sides[1:]]}; with this card's tile_px it must be float32 "
        f"(N, 3, {side}, {side}) or uint8 (N, {side}, {side}, 3). Correct tile_px, or export it again in float32."
    )


def wrapped(model: onnx.ModelProto, found: Interface, card: ModelCard, scores: Scores, *, batch: int | None) -> bytes:
    """Return the bundle's graph, of input `tiles` and output `probabilities`.

    Args:
        model: that was checked (`graph_checks.self_contained_model`).
        found: its interface.
        card: its mean and std are written into the graph of a model that takes float images.
        scores: what the model gives: logits get a softmax, one logit a sigmoid.
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
    after = _after(outer, PREFIX + found.scores, scores)
    renamed = {PREFIX + found.input: images} | {PREFIX + name: name for name in kept}
    outer.node.extend([*before, *(_renamed(node, renamed) for node in inner.node), *after])
    made = helper.make_model(outer, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    forget_origin(made)
    return bytes(made.SerializeToString(deterministic=True))


def _before(outer: onnx.GraphProto, found: Interface, card: ModelCard) -> tuple[list[onnx.NodeProto], str]:
    """The nodes from `tiles` to the model's input, and the name of that input."""
    if found.layout == "uint8-nhwc":
        return [], "tiles"
    for name, value in ((WHITE, [255.0]), (MEAN, card.mean), (STD, card.std)):
        array = np.array(value, np.float32)
        outer.initializer.append(numpy_helper.from_array(array.reshape(-1, 1, 1) if len(array) > 1 else array, name))
    return [
        helper.make_node("Cast", ["tiles"], ["tiles/float"], "tiles/Cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["tiles/float"], ["tiles/nchw"], "tiles/Transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["tiles/nchw", WHITE], ["tiles/unit"], "tiles/Div"),
        helper.make_node("Sub", ["tiles/unit", MEAN], ["tiles/centred"], "tiles/Sub"),
        helper.make_node("Div", ["tiles/centred", STD], ["images"], "images/Div"),
    ], "images"


def _after(outer: onnx.GraphProto, given: str, scores: Scores) -> list[onnx.NodeProto]:
    """The nodes from the model's scores to `probabilities`."""
    match scores:
        case "probabilities":
            return [helper.make_node("Identity", [given], ["probabilities"], "probabilities/Identity")]
        case "logits":
            return [helper.make_node("Softmax", [given], ["probabilities"], "probabilities/Softmax", axis=1)]
    outer.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    return [
        helper.make_node("Sigmoid", [given], ["second"], "probabilities/Sigmoid"),
        helper.make_node("Sub", ["one", "second"], ["first"], "probabilities/Sub"),
        helper.make_node("Concat", ["first", "second"], ["probabilities"], "probabilities/Concat", axis=1),
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
