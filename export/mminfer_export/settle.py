"""What a whole int8 trunk adds to the mean of each of its channels, taken off the bias of its last convolution.

Each layer's own shift is taken off when it is quantised, on the float graph's inputs. What is left adds up from block
to block along the skips, to the same side on every tile: this one more pass halves the error of a full-width network.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.numpy_helper import from_array, to_array

from mminfer_export.graph_edit import drop_unused
from mminfer_export.tapped import tapped
from mminfer_export.trunk import Trunk


def settle(int8: bytes, exact: onnx.ModelProto, tiles: NDArray[np.uint8]) -> bytes:
    """Return the int8 graph with the trunk's channels, before its last activation, at the float graph's means.

    Args:
        int8: as `quantize` made it.
        exact: the float32 graph that it was made of.
        tiles: that it was calibrated on, uint8 (N, tile_px, tile_px, 3).

    Raises:
        EngineUnavailableError: ONNX Runtime is not installed.
    """
    model = onnx.load_model_from_string(int8)
    shift = _trunk_means(model, tiles) - _trunk_means(exact, tiles)
    _add_to_bias(model.graph, Trunk(model.graph).last_convolution, -shift)
    return bytes(model.SerializeToString(deterministic=True))


def _trunk_means(model: onnx.ModelProto, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean (C,) of each channel before the trunk's last activation."""
    value = Trunk(model.graph).last_activation.input[0]
    session = tapped(model, [value])
    maps = (session.run([value], {"tiles": tile[None]})[0] for tile in tiles)
    means: NDArray[np.float64] = np.mean([each.mean((0, 2, 3), np.float64) for each in maps], axis=0)
    return means


def _add_to_bias(graph: onnx.GraphProto, node: onnx.NodeProto, change: NDArray[np.float64]) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    before = to_array(stored[node.input[2]]) if len(node.input) > 2 and node.input[2] else 0.0
    name = f"{node.name}_settled"
    graph.initializer.append(from_array((before + change).astype(np.float32), name))
    del node.input[2:]
    node.input.append(name)
    drop_unused(graph)
