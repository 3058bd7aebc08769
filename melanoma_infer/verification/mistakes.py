"""Common mistakes between a slide's pixels and a network's first layer, each in a form that can be tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import ModelCard
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.base import Engine
from melanoma_infer.errors import EngineUnavailableError

Rgb = NDArray[np.uint8]
Channels = tuple[float, float, float]

GRAPH_ENGINES = ("openvino", "onnxruntime")
SAME: Channels = (1.0, 1.0, 1.0)
NOTHING: Channels = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class InputMistake:
    """A mistake that equals a change of a correct graph's input: x → gain · x + shift for each channel.

    With `swapped`, the channels are in reverse order instead.
    """

    name: str
    gain: Channels = SAME
    shift: Channels = NOTHING
    swapped: bool = False

    def pixels(self, tiles: Rgb) -> Rgb:
        """The tiles; with their channels in reverse order if that is the mistake."""
        return np.ascontiguousarray(tiles[..., ::-1]) if self.swapped else tiles

    def made(self, graph: bytes) -> bytes | None:
        """The correct graph changed to make this mistake; None if it does not begin with a Cast of the tiles."""
        return _fed(graph, np.array(self.gain), np.array(self.shift))

    def undone(self, graph: bytes) -> bytes | None:
        """A graph that makes this mistake, corrected; None as in `made`."""
        return _fed(graph, 1 / np.array(self.gain), -np.array(self.shift) / np.array(self.gain))


def input_mistakes(card: ModelCard) -> Iterator[InputMistake]:
    """Mistakes in channel order and in normalisation with the card's mean and std."""
    mean, std = np.array(card.mean), np.array(card.std)
    yield InputMistake("channels swapped (BGR in place of RGB)", swapped=True)
    yield InputMistake("no division by 255 before the normalisation", gain=(255.0, 255.0, 255.0))
    yield InputMistake("divided by 255 twice", gain=(1 / 255, 1 / 255, 1 / 255))
    if mean.any() or (std != 1).any():
        yield InputMistake("normalised twice", gain=_channels(1 / std), shift=_channels(-255 * mean / std))
        yield InputMistake("mean and standard deviation left out", gain=_channels(std), shift=_channels(255 * mean))


def graph_engine(bundle: Bundle, graph: bytes) -> Engine:
    """A CPU engine that runs this fp32 graph in place of the bundle's.

    Raises:
        EngineUnavailableError: no CPU engine runs it.
    """
    changed = {name: value for name, value in vars(bundle).items() if name != "precisions"}
    other = Bundle(**{**changed, "graphs": {"fp32": graph}})
    for name in GRAPH_ENGINES:
        try:
            return load_engine(other, name, precision="fp32").engine
        except EngineUnavailableError as error:
            why = error
    raise why


def _channels(values: NDArray[np.float64]) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _fed(graph: bytes, gain: NDArray[np.float64], shift: NDArray[np.float64]) -> bytes | None:
    """The graph with x → gain · x + shift after the Cast of its tiles (N, H, W, 3)."""
    import onnx
    from onnx import helper, numpy_helper

    if (gain == 1).all() and (shift == 0).all():
        return graph
    model = onnx.load_model_from_string(graph)
    nodes = list(model.graph.node)
    at = next((i for i, node in enumerate(nodes) if node.op_type == "Cast" and node.input[0] == "tiles"), None)
    if at is None:
        return None
    cast, name = nodes[at], nodes[at].output[0]
    kind = next(attribute.i for attribute in cast.attribute if attribute.name == "to")
    if kind != onnx.TensorProto.FLOAT:
        return None
    cast.output[0] = f"{name}_as_read"
    for key, value in (("gain", gain), ("shift", shift)):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), f"{name}_{key}"))
    fed = [
        helper.make_node("Mul", [f"{name}_as_read", f"{name}_gain"], [f"{name}_scaled"]),
        helper.make_node("Add", [f"{name}_scaled", f"{name}_shift"], [name]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: at + 1], *fed, *nodes[at + 1 :]])
    return bytes(model.SerializeToString())
