"""What a user's ONNX file takes and gives, or why it cannot be fed with tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from melanoma_infer.bundle.graph_checks import nodes_of
from melanoma_infer.bundle.graph_edit import producers
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError
from mminfer_export.ending import Ending, ending_of

Layout = Literal["float-nchw", "float-nhwc", "uint8-nhwc"]
TO_NCHW = [0, 3, 1, 2]


@dataclass(frozen=True)
class Interface:
    """What a model's graph takes and gives, by the names in its file."""

    input: str
    layout: Layout
    scores: str
    has_rank_2: bool
    """Whether the scores are declared as (N, K); others are reshaped."""
    ending: Ending
    batch: int | None
    """1 where the file is fixed to one tile; None where it takes any number."""


def interface_of(model: onnx.ModelProto, card: ModelCard) -> Interface:
    """The model's one image input, and the output that holds the classes.

    Raises:
        BundleError: it has another interface than one of the three layouts, or does not fit the card.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise BundleError(f"The ONNX file has {len(inputs)} inputs; only tiles can be fed. Export it with one.")
    outputs = {value.name: value for value in graph.output}
    if missing := sorted(set(card.outputs) - outputs.keys()):
        raise BundleError(f"The card names the output {missing[0]!r}, which the ONNX file lacks. Correct the card.")
    scores = [name for name in outputs if name not in card.outputs]
    if len(scores) != 1:
        raise BundleError(
            f"The ONNX file has the outputs {sorted(outputs)}. Export it with one, the classes' scores (N, K), beside "
            "those that the card's `outputs` names."
        )
    for value in graph.output:
        if (kind := value.type.tensor_type.elem_type) != TensorProto.FLOAT:
            raise BundleError(
                f"The ONNX file's output {value.name!r} is {TensorProto.DataType.Name(kind).lower()}; it must be "
                "float32. Export the model in float32, with scores and not class numbers; `mminfer export` makes fp16 "
                "and int8 from a float32 bundle."
            )
    if flat := [name for name in card.outputs if not _sides(outputs[name])]:
        raise BundleError(f"The ONNX file's output {flat[0]!r} has no axis for the batch. Export it as (N, …).")
    layout = _layout(inputs[0], graph, card)
    batch = _sides(inputs[0])[0]
    if batch not in (None, 1):
        raise BundleError(
            f"The ONNX file's batch size is fixed at {batch}. Export it with an open one: "
            'torch.onnx.export(…, dynamic_shapes=({0: torch.export.Dim("batch")},)), or '
            f'dynamic_axes={{"{inputs[0].name}": {{0: "batch"}}}} with dynamo=False.'
        )
    return Interface(
        input=inputs[0].name,
        layout=layout,
        scores=scores[0],
        has_rank_2=len(_sides(outputs[scores[0]])) == 2,
        ending=ending_of(graph, scores[0]),
        batch=batch,
    )


def without_unused(content: bytes) -> bytes:
    """The ONNX file without what exporters write and no runtime needs.

    That is the names of other domains without an operator (tf2onnx writes `ai.onnx.ml`), and open sides written as 0.
    """
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError):
        return content
    if not model.functions:
        used = {"", "ai.onnx", *(node.domain for node in nodes_of(model.graph))}
        kept = [each for each in model.opset_import if each.domain in used]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.Clear()
    return bytes(model.SerializeToString())


def with_float32_outputs(model: onnx.ModelProto) -> None:
    """Let a last Cast to another floating-point type give float32: the cast only rounds what was computed."""
    makers = producers(model.graph)
    for value in model.graph.output:
        maker, kind = makers.get(value.name), value.type.tensor_type
        if maker is not None and maker.op_type == "Cast" and kind.elem_type in (
            TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE,
        ):  # fmt: skip
            (to,) = (attribute for attribute in maker.attribute if attribute.name == "to")
            to.i = kind.elem_type = TensorProto.FLOAT


def _sides(value: onnx.ValueInfoProto) -> list[int | None]:
    """The dimensions of a value; None for an open one, which some exporters write as 0 or −1."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _layout(value: onnx.ValueInfoProto, graph: onnx.GraphProto, card: ModelCard) -> Layout:
    kind = value.type.tensor_type
    sides = _sides(value)
    side = card.tile_px

    def fits(*wanted: int) -> bool:
        return len(sides) == 4 and all(found in (None, want) for found, want in zip(sides[1:], wanted, strict=True))

    if kind.elem_type == TensorProto.UINT8 and fits(side, side, 3):
        return "uint8-nhwc"
    if kind.elem_type == TensorProto.FLOAT:
        last, first = fits(side, side, 3), fits(3, side, side)
        # Where no dimension tells: does the first operator move channels from the last place to the second?
        taker = next((node for node in graph.node if value.name in node.input), None)
        turns = taker is not None and any(list(attribute.ints) == TO_NCHW for attribute in taker.attribute)
        if last and (not first or turns):
            return "float-nhwc"
        if first:
            return "float-nchw"
    name = TensorProto.DataType.Name(kind.elem_type).lower()
    raise BundleError(
        f"The ONNX file takes {name} {['N', *sides[1:]]}; with this card's tile_px it must be float32 "
        f"(N, 3, {side}, {side}) or (N, {side}, {side}, 3), or uint8 (N, {side}, {side}, 3). Correct tile_px, or "
        "export it again in float32."
    )
