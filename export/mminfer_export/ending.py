"""How a graph ends: its scores are followed backwards to the operator that tells whether they are probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from melanoma_infer.bundle.graph_edit import constant_of, producers

KEEPS = frozenset({
    "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Concat", "Slice",
    "Gather", "Split", "Pad", "Expand", "QuantizeLinear", "DequantizeLinear", "GlobalAveragePool", "AveragePool",
    "ReduceMean", "Mean",
})  # fmt: skip
"""Their result is of the same kind as their inputs: moved, rounded or averaged."""
ARITHMETIC = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Sum",
        "Neg",
        "BatchNormalization",
        "ReduceSum",
        "GlobalMaxPool",
        "MaxPool",
        "ReduceMax",
        "ReduceMin",
    }
)
"""Logits stay logits; a probability that is scaled or shifted is no longer known to be one."""
PRODUCTS = frozenset(
    {"Gemm", "MatMul", "Conv", "Einsum", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}
)
SQUASHES: dict[str, Literal["softmax", "sigmoid"]] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
}


@dataclass(frozen=True)
class Ending:
    """How a graph makes its scores, and the operator that tells.

    `sorted`: the highest ones, whatever class they are of; `unknown`: none of the known operators tells.
    """

    kind: Literal["logits", "softmax", "sigmoid", "sorted", "unknown"]
    node: onnx.NodeProto | None = None


UNKNOWN = Ending("unknown")


def ending_of(graph: onnx.GraphProto, value: str) -> Ending:
    """How this value of the graph, whose nodes are in order, is made."""
    return _Trace(graph).endings.get(value, UNKNOWN)


class _Trace:
    """What each value of a graph is, told by the operators before it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._makers = producers(graph)
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._computed = {value.name for value in graph.input} - self._stored.keys()
        for node in graph.node:
            if self._computed.intersection(node.input):
                self._computed.update(node.output)
        self.endings: dict[str, Ending] = {}
        for node in graph.node:
            self.endings.update(dict.fromkeys(node.output, self._ending(node)))

    def _ending(self, node: onnx.NodeProto) -> Ending:
        if node.op_type == "TopK":
            return Ending("sorted", node)
        if node.op_type in SQUASHES:
            return Ending(SQUASHES[node.op_type], node)
        if node.op_type == "LogSoftmax":
            return Ending("logits", node)  # their softmax is the same probabilities again
        if node.op_type in PRODUCTS:
            return UNKNOWN if self._mixes_probabilities(node) or self._only_adds_up(node) else Ending("logits", node)
        if node.op_type in KEEPS | ARITHMETIC | {"Clip", "Log"}:
            return self._through(node)
        return UNKNOWN

    def _through(self, node: onnx.NodeProto) -> Ending:
        """The ending after a node that keeps the kind of its inputs, or does so for some kinds."""
        several = node.op_type in ARITHMETIC | {"Concat", "Mean"}
        data = [name for name in (node.input if several else node.input[:1]) if name in self._computed]
        sources = [self.endings.get(name, UNKNOWN) for name in data]
        normalises = node.op_type == "Div" and node.input[1] in self._computed
        if not sources or normalises or any(source.kind != sources[0].kind for source in sources):
            return UNKNOWN
        if node.op_type in ("ReduceMax", "ReduceMin") and sources[0].kind == "softmax" and self._reduces_classes(node):
            return Ending("sorted", node)
        squashed = sources[0].kind in ("softmax", "sigmoid")
        if node.op_type in KEEPS or (squashed and (node.op_type == "Clip" or self._is_complement(node))):
            return sources[0]
        if node.op_type == "Log" and sources[0].kind == "softmax":
            return Ending("logits", node)
        return sources[0] if node.op_type in ARITHMETIC and sources[0].kind == "logits" else UNKNOWN

    def _mixes_probabilities(self, node: onnx.NodeProto) -> bool:
        """Whether a product's input may be probabilities, as where classes are merged after a softmax."""
        for name in node.input:
            maker = self._makers.get(name)
            while maker is not None and maker.op_type in KEEPS:
                maker = self._makers.get(maker.input[0])
            if maker is not None and maker.op_type in SQUASHES:
                return True
        return False

    def _only_adds_up(self, node: onnx.NodeProto) -> bool:
        """Whether a product only selects or adds up what may be probabilities, as where classes are merged.

        Its weights are then not negative, and it has no bias. What it takes is no feature, which a Relu or a product
        makes, and no tile.
        """
        maker = self._makers.get(node.input[0])
        while maker is not None and maker.op_type in KEEPS:
            maker = self._makers.get(maker.input[0])
        if maker is None or maker.op_type in PRODUCTS | {"Relu"}:
            return False
        stored = [constant_of(name, self._stored, self._makers) for name in node.input[1:] if name]
        values = [value for value in stored if value is not None and np.issubdtype(value.dtype, np.floating)]
        if not values or len(values) < len(stored):
            return False
        return bool((values[0] >= 0).all()) and not any(bias.any() for bias in values[1:])

    def _reduces_classes(self, node: onnx.NodeProto) -> bool:
        """Whether a reduction is over the classes, not over the places of a map."""
        axes = [list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"]
        if len(node.input) > 1 and (value := constant_of(node.input[1], self._stored, self._makers)) is not None:
            axes = [value.ravel().tolist()]
        return axes in ([[1]], [[-1]])

    def _is_complement(self, node: onnx.NodeProto) -> bool:
        """Whether the node is 1 − x."""
        if node.op_type != "Sub" or node.input[0] in self._computed:
            return False
        value = constant_of(node.input[0], self._stored, self._makers)
        return value is not None and bool((value == 1).all())
