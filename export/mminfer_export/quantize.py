"""A float32 ONNX graph → int8 by explicit QuantizeLinear/DequantizeLinear, one file for every engine.

Only the backbone is int8 (`backbone.py`), by the rules of `check_quantized.py`. Ranges minimise the squared error on
calibration tiles; the shift of each channel's mean is subtracted from the layer's bias. The most harmful layers can be
kept in float.

Chosen over NNCF and ONNX Runtime's quantiser, which `benchmarks/peers/quantisers.py` runs beside it. At full width on
OpenVINO (results/quantisers.csv: p99.9 of |Δp|, drawn tiles) this one gives 0.0037 in files that every engine reads;
NNCF 0.0043 with uint8, which TensorRT-RTX misreads, and 0.011 rewritten to int8; ONNX Runtime 0.016. Both put a
QuantizeLinear on both inputs of an Add: 3 to 9 % faster on a CPU, and not what TensorRT fuses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.numpy_helper import from_array, to_array

from melanoma_infer.bundle.graph_edit import (
    copied,
    drop_unused,
    fold_reshaped,
    name_nodes,
    refuse_inner_graphs,
    sort_topologically,
    store_constants,
)
from melanoma_infer.errors import UsageError
from mminfer_export.backbone import Backbone
from mminfer_export.check_quantized import check_quantized
from mminfer_export.tapped import tapped

LEVELS = 127
CLIPS = np.linspace(0.60, 1.0, 21)
"""Ends of a range to try, as shares of the largest value: lower ones clip on slides with stronger activations."""
SAMPLES = 20_000
"""Values of an activation that are sampled from each tile to choose its range."""
Values = NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A convolution that may be int8, and its calibration."""

    name: str
    weight: str
    bias: str | None
    shift: NDArray[np.float32]
    """The shift of each output channel's mean caused by int8, (C,)."""


@dataclass(frozen=True)
class Calibration:
    """A float32 graph with everything that is needed to quantise any of its layers."""

    model: onnx.ModelProto
    scales: Mapping[str, float]
    """Scale of each activation that is quantised, by its name."""
    layers: tuple[Layer, ...]
    """In the graph's order."""


def calibrate(content: bytes, tiles: NDArray[np.uint8]) -> Calibration:
    """The ranges and errors of a graph's backbone on tiles uint8 (N, tile_px, tile_px, 3).

    Raises:
        BundleError: the graph has no backbone that can be quantised.
        UsageError: there is no tile.
        EngineUnavailableError: ONNX Runtime is not installed.
    """
    if not len(tiles):
        raise UsageError("There is no tile to calibrate on. Choose slides with tissue.")
    model = onnx.load_model_from_string(content)
    refuse_inner_graphs(model.graph)
    name_nodes(model.graph)
    sort_topologically(model.graph)
    store_constants(model.graph)
    fold_reshaped(model.graph)
    backbone = Backbone(model.graph)
    places = list(dict.fromkeys([*(node.input[0] for node in backbone.convolutions), *backbone.skips().values()]))
    samples: dict[str, list[Values]] = {place: [] for place in places}
    rng = np.random.default_rng(0)
    session = tapped(model, places)
    for tile in tiles:
        for place, values in zip(places, session.run(places, {"tiles": tile[None]}), strict=True):
            flat = values.ravel()
            chosen = flat[rng.integers(0, len(flat), SAMPLES)] if len(flat) > SAMPLES else flat
            samples[place].append(np.append(chosen, (flat.max(), flat.min())))
    scales = {place: best_scale(np.concatenate(parts)) for place, parts in samples.items()}
    layers = _layers(model, backbone.convolutions, scales, tiles)
    return Calibration(model, scales, layers)


def quantize(calibration: Calibration, keep_float: Collection[str] = ()) -> bytes:
    """Return the int8 graph, with these convolutions left in float; the same input gives the same bytes.

    Raises:
        BundleError: the result breaks a rule of check_quantized.
    """
    model = copied(calibration.model)
    layers = [layer for layer in calibration.layers if layer.name not in keep_float]
    writer = _Writer(model.graph, calibration.scales)
    skips = Backbone(model.graph).skips()
    nodes = {node.name: node for node in model.graph.node}
    for layer in layers:
        writer.quantize_convolution(nodes[layer.name], layer)
    quantised = {nodes[layer.name].output[0] for layer in layers}
    for name, skip in skips.items():
        if quantised.intersection(set(nodes[name].input) - {skip}):
            writer.take_quantised(nodes[name], skip)
    writer.finish()
    onnx.checker.check_model(model)
    if layers:
        check_quantized(model)
    return bytes(model.SerializeToString(deterministic=True))


def most_harmful(calibration: Calibration, tiles: NDArray[np.uint8]) -> list[str]:
    """Names of the layers, sorted by how much each alone in int8 changes the probabilities of these tiles, most first.

    One run of the graph for each layer and tile. The error of a layer's own output says little: in a narrow network it
    was seen to rank last the layers whose error the later ones amplify.
    """
    names = [layer.name for layer in calibration.layers]
    exact = _probabilities(calibration.model.SerializeToString(), tiles)
    harm = {
        name: float(np.square(_probabilities(quantize(calibration, set(names) - {name}), tiles) - exact).mean())
        for name in names
    }
    return sorted(names, key=lambda name: -harm[name])


def _probabilities(content: bytes, tiles: NDArray[np.uint8]) -> Values:
    session = tapped(onnx.load_model_from_string(content), ["probabilities"])
    return np.concatenate([session.run(["probabilities"], {"tiles": tile[None]})[0] for tile in tiles])


class _Writer:
    """Adds QuantizeLinear and DequantizeLinear to a sorted graph; each value is quantised once."""

    def __init__(self, graph: onnx.GraphProto, scales: Mapping[str, float]) -> None:
        self._graph = graph
        self._scales = scales
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._dequantised: dict[str, str] = {}

    def quantize_convolution(self, node: onnx.NodeProto, layer: Layer) -> None:
        """Give a convolution an int8 input, an int8 weight, and a bias without its shift."""
        before = to_array(self._stored[layer.bias]) if layer.bias else np.zeros_like(layer.shift)
        bias = self._store(f"{layer.bias or layer.weight}_corrected", before - layer.shift)
        self.take_quantised(node, node.input[0])
        node.input[1] = self._dequantised_weight(layer.weight)
        del node.input[2:]
        node.input.append(bias)

    def take_quantised(self, node: onnx.NodeProto, value: str) -> None:
        """Replace this input of the node by its value after int8."""
        through = self.through_int8(value)
        for place, name in enumerate(node.input):
            if name == value:
                node.input[place] = through

    def through_int8(self, value: str) -> str:
        """The name of a value after QuantizeLinear and DequantizeLinear."""
        if value not in self._dequantised:
            scale = self._store(f"{value}_scale", np.float32(self._scales[value]))
            zero = self._store("zero", np.int8(0))
            self._add("QuantizeLinear", [value, scale, zero], f"{value}_int8")
            self._add("DequantizeLinear", [f"{value}_int8", scale, zero], f"{value}_back")
            self._dequantised[value] = f"{value}_back"
        return self._dequantised[value]

    def finish(self) -> None:
        """Sort the graph and remove the float weights."""
        sort_topologically(self._graph)
        drop_unused(self._graph)
        self._graph.ClearField("value_info")

    def _dequantised_weight(self, weight: str) -> str:
        values, scales = int8_weight(to_array(self._stored[weight]))
        stored = self._store(f"{weight}_int8", values)
        scale = self._store(f"{weight}_scale", scales)
        zeros = self._store(f"{weight}_zeros", np.zeros(len(scales), np.int8))
        self._add("DequantizeLinear", [stored, scale, zeros], f"{weight}_back", axis=0)
        return f"{weight}_back"

    def _store(self, name: str, values: Values | np.generic) -> str:
        if name not in self._stored:
            self._graph.initializer.append(from_array(np.asarray(values), name))
            self._stored[name] = self._graph.initializer[-1]
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: int) -> None:
        self._graph.node.append(_node(kind, inputs, output, f"{kind}_{output}", **attributes))


def int8_weight(weight: Values) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight (C, …) in int8 and its scales (C,): the largest value of each output channel is ± 127."""
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    scales = (np.where(largest > 0, largest, 1.0) / LEVELS).astype(np.float32)
    steps = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8), scales


def best_scale(values: Values) -> float:
    """The scale at which int8 has the least squared error on these values."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return 1.0
    errors = []
    for scale in CLIPS * largest / LEVELS:
        steps = np.clip(np.rint(values / scale), -LEVELS - 1, LEVELS)
        errors.append(float(np.square(steps * scale - values).mean()))
    return float(CLIPS[int(np.argmin(errors))] * largest / LEVELS)


def _layers(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], scales: Mapping[str, float], tiles: NDArray[np.uint8]
) -> tuple[Layer, ...]:
    """Run each convolution in float and in int8 on the float graph's inputs: the shifts of all layers in one pass."""
    probed = copied(model)
    graph = probed.graph
    writer = _Writer(graph, scales)
    for node in nodes:
        beside = onnx.NodeProto.FromString(node.SerializeToString())
        beside.name, beside.output[0] = f"{node.name}.beside", f"{node.name}.int8"
        writer.take_quantised(beside, node.input[0])
        beside.input[1] = writer._dequantised_weight(node.input[1])
        difference, shift = f"{node.name}.difference", f"{node.name}.shift"
        graph.node.extend(
            [
                beside,
                _node("Sub", [beside.output[0], node.output[0]], difference, difference),
                # Not ReduceMean, whose axes are an attribute before opset 18 and an input from it on.
                _node("GlobalAveragePool", [difference], shift, shift),
            ]
        )
    sort_topologically(graph)
    asked = [f"{node.name}.shift" for node in nodes]
    session = tapped(probed, asked)
    seen = [session.run(asked, {"tiles": tile[None]}) for tile in tiles]
    mean = {name: np.mean([values[i] for values in seen], axis=0).ravel() for i, name in enumerate(asked)}
    return tuple(
        Layer(
            name=node.name,
            weight=node.input[1],
            bias=node.input[2] if len(node.input) > 2 and node.input[2] else None,
            shift=mean[f"{node.name}.shift"].astype(np.float32),
        )
        for node in nodes
    )


def _node(kind: str, inputs: Sequence[str], output: str, name: str, **attributes: Any) -> onnx.NodeProto:
    node: onnx.NodeProto = helper.make_node(kind, inputs, [output], name=name, **attributes)
    return node
