"""The rules that let one int8 file run on OpenVINO, ONNX Runtime, TensorRT-RTX and TensorRT with the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto
from onnx.numpy_helper import to_array

from melanoma_infer.bundle.graph_edit import producers
from melanoma_infer.errors import BundleError
from mminfer_export.backbone import QUANTIZERS, Backbone


def check_quantized(model: onnx.ModelProto) -> None:
    """Raise BundleError unless the graph keeps every rule.

    Each QuantizeLinear and DequantizeLinear is int8 with an explicit zero point of 0 (TensorRT-RTX reads uint8 as int8
    with a mere warning, and builds a wrong engine); weights have a scale for each output channel; a residual Add takes
    only its skip from a DequantizeLinear; biases are float (TensorRT-RTX refuses int32 after a DequantizeLinear); and
    nothing is quantised before the first convolution, after the backbone's last activation, or outside the backbone.

    Raises:
        BundleError: a rule is broken; the message names the node.
    """
    _Checker(model.graph).check()


class _Checker:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = producers(graph)
        self._backbone = Backbone(graph)
        self._within = {node.name for node in self._backbone.before(self._backbone.last_activation)}
        self._convolutions = {node.name for node in self._backbone.convolutions}

    def check(self) -> None:
        for node in self._graph.node:
            if node.op_type in QUANTIZERS:
                self._check_parameters(node)
                self._check_place(node)
            else:
                self._check_inputs(node)

    def _check_parameters(self, node: onnx.NodeProto) -> None:
        zero = self._stored.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            raise _broken(node, "has no stored zero point, so each runtime would guess its type")
        if zero.data_type != TensorProto.INT8 or to_array(zero).any():
            kind = TensorProto.DataType.Name(zero.data_type).lower()
            value = next((int(each) for each in to_array(zero).ravel() if each), 0)
            raise _broken(node, f"has a zero point of type {kind} and value {value}; it must be int8 and 0")
        scale = self._stored.get(node.input[1])
        values = None if scale is None or scale.data_type != TensorProto.FLOAT else to_array(scale)
        if values is None or not (np.isfinite(values).all() and (values > 0).all()):
            raise _broken(node, "needs a stored float32 scale above 0")

    def _check_place(self, node: onnx.NodeProto) -> None:
        weight = self._stored.get(node.input[0])
        if weight is not None:
            if weight.data_type != TensorProto.INT8:
                kind = TensorProto.DataType.Name(weight.data_type).lower()
                raise _broken(node, f"dequantises a stored {kind} tensor; weights are int8 and biases float")
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            if list(self._stored[node.input[1]].dims) != [weight.dims[0]] or axis != 0:
                raise _broken(node, "has no scale for each output channel of its weight")
        elif node.op_type == "QuantizeLinear":
            if node.name not in self._within:
                raise _broken(node, "is after the backbone's last activation or outside the backbone")
            if not self._backbone.is_after_convolution(node.input[0]):
                raise _broken(node, "is before the first convolution")
        elif (maker := self._makers.get(node.input[0])) is None or maker.op_type != "QuantizeLinear":
            raise _broken(node, "has an input that is neither a stored tensor nor a QuantizeLinear")

    def _check_inputs(self, node: onnx.NodeProto) -> None:
        makers = [self._makers.get(name) for name in node.input]
        quantised = [maker is not None and maker.op_type == "DequantizeLinear" for maker in makers]
        if not any(quantised):
            return
        if node.op_type == "Add":
            if self._backbone.skips().get(node.name) != node.input[quantised.index(True)] or sum(quantised) > 1:
                raise _broken(node, "must take its skip, and nothing else, from a DequantizeLinear")
        elif node.name not in self._convolutions:
            raise _broken(node, "is int8 but outside the backbone; depth and heads must stay in float")
        elif quantised[:2] != [True, True] or any(quantised[2:]):
            raise _broken(node, "must have an int8 input and weight, and a float bias")


def _broken(node: onnx.NodeProto, rule: str) -> BundleError:
    return BundleError(f"The int8 graph: {node.name!r} ({node.op_type}) {rule}. Quantise the fp32 model again.")
