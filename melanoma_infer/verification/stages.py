"""The stages of a graph: which values belong to the input, the backbone, the depth, the attention and so on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import onnx

Stage = Literal["input", "backbone", "depth", "attention", "projection", "head", "maps", "run"]

STAGES: dict[Stage, str] = {
    "input": "input decoding and normalisation",
    "backbone": "backbone",
    "depth": "depth",
    "attention": "attention",
    "projection": "projection to features",
    "head": "head and probabilities",
    "maps": "class activation maps",
    "run": "loading or running",
}
"""Stages in the order of the flow, and how they are named to the user."""

SHAPES = frozenset({"Cast", "Transpose", "Identity", "Reshape", "Unsqueeze", "QuantizeLinear", "DequantizeLinear"})
POINTWISE = SHAPES | {"Div", "Sub", "Mul", "Add"}


def stages_of(graph: onnx.GraphProto) -> dict[str, Stage]:
    """The stage of every value that a node computes, by name, judged by the outputs that depend on it.

    Input: pointwise operators before the first matrix product or convolution. Depth and attention: values that only
    these outputs depend on. Backbone: the other values that the attention depends on; in a graph without attention,
    those before the first fully connected layer.
    """
    outputs = {value.name for value in graph.output}
    made = {name: node for node in graph.node for name in node.output if name}
    stored = {tensor.name for tensor in graph.initializer}
    start = {value.name for value in graph.input if value.name not in stored}
    for node in graph.node:
        if node.op_type in POINTWISE and start.intersection(node.input):
            start.update(node.output)
    leads = {name: _ancestors(made, [name]) for name in outputs}
    elsewhere = _ancestors(made, outputs - {"attention"}, closed={"attention"})
    without_depth = _ancestors(made, outputs - {"depth_mm"}, closed={"depth_mm"})
    if "attention" in leads:
        backbone = leads["attention"] & elsewhere
    else:
        before_head = takewhile(lambda node: node.op_type not in ("Gemm", "MatMul"), graph.node)
        backbone = leads["probabilities"].intersection(name for node in before_head for name in node.output)
    stages: dict[str, Stage] = {}
    for name in made:
        if name in start:
            stages[name] = "input"
        elif name in leads.get("depth_mm", ()) and name not in without_depth:
            stages[name] = "depth"
        elif name in backbone:
            stages[name] = "backbone"
        elif name in leads.get("attention", ()):
            stages[name] = "attention"
        elif name in leads.get("features", ()):
            stages[name] = "projection"
        else:
            stages[name] = "head" if name in leads["probabilities"] else "maps"
    return stages


def _ancestors(
    made: Mapping[str, onnx.NodeProto], names: Iterable[str], *, closed: Iterable[str] = ()
) -> frozenset[str]:
    """These values and all that they depend on; paths through `closed` values are not followed."""
    seen: set[str] = set(closed)
    waiting = [name for name in names if name not in seen]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in made:
            found.add(name)
            waiting.extend(made[name].input)
    return frozenset(found)
