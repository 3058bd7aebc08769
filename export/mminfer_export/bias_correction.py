"""Bias correction of a whole int8 backbone: the bias of its last convolution absorbs the shift of each channel's mean.

`quantize` corrects each layer by itself, on the float graph's inputs. The remaining shifts add up from block to block
along the skip connections, with the same sign on every tile; and rounding noise alone raises the mean after a ReLU.
This second correction divided the error of a full-width network by three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.numpy_helper import from_array, to_array
from onnx.reference import ReferenceEvaluator

from melanoma_infer.bundle.graph_edit import drop_unused
from mminfer_export.backbone import Backbone
from mminfer_export.tapped import tapped

STEPS = 12
"""Iterations of Newton's method: four are enough for most channels, more where few values pass the activation."""
LEAST_SLOPE = 0.005
"""Lower bound of the slope of an activation's mean, for channels where hardly any value passes."""
Values = NDArray[np.float32]
Activation = Callable[[Values], Values]


def correct_bias(int8: bytes, exact: onnx.ModelProto, tiles: NDArray[np.uint8]) -> bytes:
    """Return the int8 graph with a new bias: each channel then has the float graph's mean after the last activation.

    Args:
        int8: the output of `quantize`.
        exact: the float32 graph that it was made from.
        tiles: the calibration tiles, uint8 (N, tile_px, tile_px, 3).

    Raises:
        EngineUnavailableError: ONNX Runtime is not installed.
    """
    model = onnx.load_model_from_string(int8)
    activation = last_activation(model.graph)
    wanted = activation(_last_sums(exact, tiles)).mean(1, np.float64)
    change = shift_to(wanted, _last_sums(model, tiles), activation)
    node = Backbone(model.graph).last_convolution
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    before = to_array(stored[node.input[2]]) if len(node.input) > 2 and node.input[2] else np.float32(0.0)
    name = f"{node.name}_bias_corrected"
    model.graph.initializer.append(from_array(before + change, name))
    del node.input[2:]
    node.input.append(name)
    drop_unused(model.graph)
    return bytes(model.SerializeToString(deterministic=True))


def shift_to(wanted: NDArray[np.float64], values: Values, activation: Activation) -> Values:
    """The number to add to each row of values (C, M) so that its mean after the activation is `wanted` (C,).

    0 where no step comes closer than the start, for example where no value passes the activation.
    """
    shift = np.zeros(len(values), np.float32)
    missing = first = wanted - activation(values).mean(1, np.float64)
    for _ in range(STEPS):
        # The derivative of each row's mean after the activation with respect to a shift of the row.
        moved = values + shift[:, None]
        step = np.float32(1e-3) * (moved.std(1, keepdims=True) + np.float32(1e-6))
        rise = (activation(moved + step) - activation(moved - step)) / (2 * step)
        slope = np.maximum(rise.mean(1, np.float64), LEAST_SLOPE)
        shift += (missing / slope).astype(np.float32)
        missing = wanted - activation(values + shift[:, None]).mean(1, np.float64)
    return np.where(np.abs(missing) < np.abs(first), shift, np.float32(0.0))


def _last_sums(model: onnx.ModelProto, tiles: NDArray[np.uint8]) -> Values:
    """The input (C, N · h · w) of the backbone's last activation, for each channel on all tiles."""
    value = Backbone(model.graph).last_activation.input[0]
    session = tapped(model, [value])
    maps = [session.run([value], {"tiles": tile[None]})[0][0] for tile in tiles]
    return np.concatenate([each.reshape(len(each), -1) for each in maps], axis=1)


def last_activation(graph: onnx.GraphProto) -> Activation:
    """The backbone's last activation as a function."""
    node = Backbone(graph).last_activation
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    bounds: dict[str, Any] = {name: stored[name] for name in node.input[1:] if name}
    run = ReferenceEvaluator(node)

    def activation(values: Values) -> Values:
        (result,) = run.run(None, {node.input[0]: values, **bounds})
        return np.asarray(result, np.float32)

    return activation
