"""Which part of a graph may be int8: the convolutions between the first one and the backbone's last activation.

Nothing is quantised before the first convolution or after that activation, so depth and heads never are. The backbone
is found by structure, not by name, so that this works for any network: its last activation is the one with the most
convolutions before it.
"""

from __future__ import annotations

from functools import cached_property

import onnx

from melanoma_infer.bundle.graph_edit import producers
from melanoma_infer.errors import BundleError

ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Clip", "HardSwish"})
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


class Backbone:
    """The backbone of a graph, quantised or not."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._makers = producers(graph)
        self._stored = {tensor.name for tensor in graph.initializer}

    @cached_property
    def last_activation(self) -> onnx.NodeProto:
        """The activation after a convolution, or a sum with one, that has the most convolutions before it.

        Raises:
            BundleError: there is none.
        """
        activations = [node for node in self._graph.node if node.op_type in ACTIVATIONS]
        found = [
            node for node, source in zip(activations, (self.source(each.input[0]) for each in activations), strict=True)
            if source is not None
            and (source.op_type == "Conv" or (source.op_type == "Add" and self._is_residual(source)))
        ]  # fmt: skip
        if not found:
            raise BundleError("The graph has no convolution followed by an activation: int8 is not possible.")
        last: onnx.NodeProto = max(found, key=lambda node: sum(each.op_type == "Conv" for each in self.before(node)))
        return last

    @cached_property
    def last_convolution(self) -> onnx.NodeProto:
        """The convolution whose output, possibly after a residual Add, is the input of the last activation."""
        source = self.source(self.last_activation.input[0])
        if source is not None and source.op_type == "Add":
            source = self.source(next(name for name in source.input if name != self._skip(source)))
        assert source is not None  # or that activation would not have been found
        return source

    @cached_property
    def convolutions(self) -> list[onnx.NodeProto]:
        """The convolutions that may be int8, in the graph's order."""
        within = {node.name for node in self.before(self.last_activation)}
        return [
            node for node in self._graph.node
            if node.op_type == "Conv" and node.name in within and self.is_after_convolution(node.input[0])
        ]  # fmt: skip

    def skips(self) -> dict[str, str]:
        """The skip input of each residual Add in the backbone, by the name of the Add."""
        within = {node.name for node in self.before(self.last_activation)}
        return {
            node.name: self._skip(node)
            for node in self._graph.node
            if node.op_type == "Add" and node.name in within and self._is_residual(node)
        }

    def before(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Every node that this one depends on."""
        found: dict[str, onnx.NodeProto] = {}
        waiting = [node]
        while waiting:
            for name in waiting.pop().input:
                maker = self._makers.get(name)
                if maker is not None and maker.name not in found:
                    found[maker.name] = maker
                    waiting.append(maker)
        return list(found.values())

    def is_after_convolution(self, value: str) -> bool:
        """Whether a value depends on any convolution."""
        maker = self._makers.get(value)
        return maker is not None and any(node.op_type == "Conv" for node in (maker, *self.before(maker)))

    def source(self, value: str) -> onnx.NodeProto | None:
        """The node that computes a value; QuantizeLinear and DequantizeLinear are looked through."""
        maker = self._makers.get(value)
        while maker is not None and maker.op_type in QUANTIZERS:
            maker = self._makers.get(maker.input[0])
        return maker

    def _is_residual(self, add: onnx.NodeProto) -> bool:
        """Whether this Add sums two computed values, at least one of them the output of a convolution."""
        sources = [self.source(name) for name in add.input]
        return all(source is not None for source in sources) and any(
            source is not None and source.op_type == "Conv" for source in sources
        )

    def _skip(self, add: onnx.NodeProto) -> str:
        """The input that is not a convolution's output, else the one with fewer convolutions before it."""
        return str(min(add.input, key=self._convolutions_before))

    def _convolutions_before(self, value: str) -> tuple[bool, int]:
        source = self.source(value)
        if source is None:
            return (False, 0)
        return (source.op_type == "Conv", sum(node.op_type == "Conv" for node in self.before(source)))
