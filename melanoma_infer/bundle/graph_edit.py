"""Edits of an ONNX graph in memory: names, order, removal of what is no longer used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.numpy_helper import from_array, to_array
from onnx.reference import ReferenceEvaluator

from melanoma_infer.errors import BundleError


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that can be changed without changing this one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own; those that have one keep it."""
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each value."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that take each value, in the graph's order."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    return found


def constant_of(
    name: str, stored: Mapping[str, onnx.TensorProto], makers: Mapping[str, onnx.NodeProto]
) -> NDArray[Any] | None:
    """The value of this name if it is stored in the graph, or if a Constant gives it."""
    if name in stored:
        return np.asarray(to_array(stored[name]))
    if name not in makers or makers[name].op_type != "Constant":
        return None
    values: list[Any] = list(ReferenceEvaluator(makers[name]).run(None, {}))
    return np.asarray(values[0])


def sort_topologically(graph: onnx.GraphProto) -> None:
    """Move every node after the nodes that it depends on; otherwise keep the order.

    Raises:
        BundleError: the graph has a cycle, or takes a value that nothing makes.
    """
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    waiting, placed = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if known.issuperset(node.input):
                placed.append(node)
                known.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise BundleError(f"The graph cannot be put in order at {later[0].name!r}. Export the model again.")
        waiting = later
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in placed]
    graph.ClearField("node")
    graph.node.extend(ordered)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and stored tensors that no output depends on."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):  # in order, so one pass backwards sees every consumer first
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    graph.ClearField("node")
    graph.node.extend(reversed(kept))
    tensors = [t for t in graph.initializer if t.name in wanted]
    if len(tensors) < len(graph.initializer):
        stored = [onnx.TensorProto.FromString(t.SerializeToString()) for t in tensors]
        graph.ClearField("initializer")
        graph.initializer.extend(stored)


def store_constants(graph: onnx.GraphProto) -> None:
    """Make an initializer of what each Constant node gives: converters look for weights there alone."""
    nodes = [node for node in graph.node if node.op_type == "Constant"]
    for node in nodes:
        (value,) = ReferenceEvaluator(node).run(None, {})
        graph.initializer.append(from_array(np.asarray(value), node.output[0]))
        graph.node.remove(node)


def fold_reshaped(graph: onnx.GraphProto) -> None:
    """Reshape stored tensors once, here, where a node would do so at every run; they keep their names."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    taken = consumers(graph)
    for node in list(graph.node):
        source = stored.get(node.input[0]) if node.input else None
        alone = source is not None and len(taken[source.name]) == 1
        if node.op_type in ("Unsqueeze", "Reshape") and alone and all(name in stored for name in node.input):
            inputs = {name: to_array(stored[name]) for name in node.input}
            values: list[Any] = list(ReferenceEvaluator(node).run(None, inputs))
            stored[node.input[0]].CopyFrom(from_array(np.asarray(values[0]), node.input[0]))
            for taker in taken.get(node.output[0], []):
                rename_input(taker, node.output[0], node.input[0])
            graph.node.remove(node)


def rename_input(node: onnx.NodeProto, before: str, after: str) -> None:
    """Let a node take another value."""
    for place, name in enumerate(node.input):
        if name == before:
            node.input[place] = after


def refuse_inner_graphs(graph: onnx.GraphProto) -> None:
    """Raise unless no node contains a graph of its own.

    Raises:
        BundleError: one does.
    """
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise BundleError(f"Node {node.name!r} ({node.op_type}) holds a graph of its own: only fp32 can run it.")
