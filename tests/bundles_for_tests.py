"""Bundles made for tests: graphs small enough to be set by hand, so that every number can be foretold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from melanoma_infer.bundle.bundle import Golden
from melanoma_infer.bundle.contents import CHECKSUMS, checksum_lines
from melanoma_infer.card import ModelCard
from mminfer_export.seal import seal_bundle

DARKNESS_THRESHOLD = 0.30
"""Mean darkness (1 − grey) of a tile at which the colour rule says p(tumour) = 0.5."""
STEEPNESS = 40.0


def colour_rule_graph(
    tile_px: int, *, outputs: tuple[str, ...] = (), threshold: float = DARKNESS_THRESHOLD
) -> onnx.ModelProto:
    """p(tumour) = σ(40 · (darkness − threshold)), darkness being 1 − the tile's mean grey."""
    nodes = [
        helper.make_node("Cast", ["tiles"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["nchw", "axes"], ["colour"], keepdims=0),
        helper.make_node("Gemm", ["colour", "weight", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weight = np.zeros((3, 2), np.float32)
    weight[:, 1] = -STEEPNESS / 3 / 255
    bias = np.array([0.0, STEEPNESS * (1 - threshold)], np.float32)
    constants = {"axes": np.array([2, 3], np.int64), "weight": weight, "bias": bias}
    values = {"probabilities": ["batch", 2]}
    if "depth_mm" in outputs:
        constants |= {"one": np.array([1], np.int64), "to_mm": np.array([[-1 / 255]] * 3, np.float32)}
        nodes += [
            helper.make_node("MatMul", ["colour", "to_mm"], ["depth_column"]),
            helper.make_node("Squeeze", ["depth_column", "one"], ["depth_mm"]),
        ]
        values["depth_mm"] = ["batch"]
    graph = helper.make_graph(
        nodes,
        "colour_rule",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", tile_px, tile_px, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def outcome_graph(tile_px: int, share: float) -> onnx.ModelProto:
    """The colour rule with its tumour class split in two: the second holds `share` of the tumour's probability."""
    graph = colour_rule_graph(tile_px)
    weight, bias = (next(t for t in graph.graph.initializer if t.name == name) for name in ("weight", "bias"))
    tumour = numpy_helper.to_array(weight)[:, 1]
    level = numpy_helper.to_array(bias)[1]
    split = np.array([0.0, level + np.log(1 - share), level + np.log(share)], np.float32)
    weight.CopyFrom(numpy_helper.from_array(np.stack([0 * tumour, tumour, tumour], axis=1), "weight"))
    bias.CopyFrom(numpy_helper.from_array(split, "bias"))
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    return graph


def sometimes_nan_graph(tile_px: int, *, above: float) -> onnx.ModelProto:
    """The colour rule, whose outputs are NaN for tiles brighter than a mean grey of `above`."""
    graph = colour_rule_graph(tile_px)
    nodes = graph.graph.node
    nodes[2].output[0] = "mean_colour"
    for tensor in (np.float32(above), np.zeros(3, np.float32)):
        name = "brightest" if tensor.ndim == 0 else "nothing"
        graph.graph.initializer.append(numpy_helper.from_array(np.asarray(tensor), name))
    fault = [
        helper.make_node("Sub", ["brightest", "mean_colour"], ["margin"]),
        helper.make_node("Sqrt", ["margin"], ["root"]),  # NaN below zero
        helper.make_node("Mul", ["root", "nothing"], ["zero_or_nan"]),
        helper.make_node("Add", ["mean_colour", "zero_or_nan"], ["colour"]),
    ]
    for place, node in enumerate(fault, start=3):
        nodes.insert(place, node)
    return graph


def expected_probability(tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """p(tumour) (N,) of the colour rule, in float64."""
    darkness = 1 - tiles.astype(np.float64).mean(axis=(1, 2, 3)) / 255
    return np.asarray(1 / (1 + np.exp(-STEEPNESS * (darkness - DARKNESS_THRESHOLD))))


def colour_rule_card(**changes: Any) -> ModelCard:
    """The card of the colour rule: a trained model of tissue, with a threshold at 0.5."""
    card: dict[str, Any] = {
        "name": "colour rule",
        "classes": ["normal", "tumour"],
        "malignant": ["tumour"],
        "tile_px": 64,
        "tile_um": 256.0,
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "resize": "pillow-bilinear",
        "training_data": "None: the rule was set by hand.",
        "intended_use": "To test verdicts.",
        "stain": "H&E",
        "specimen": "primary",
        "threshold": {"value": 0.5, "low": 0.45, "high": 0.55, "how": "set by hand"},
        "padding_limit": 0.9,
    }
    return ModelCard.model_validate(card | changes)


def make_bundle(
    folder: Path,
    card: ModelCard | None = None,
    graph: onnx.ModelProto | None = None,
    *,
    tiles_grey: tuple[int, ...] = (255, 190, 170, 60),
) -> Path:
    """A sealed bundle of the colour rule, or of another card and graph."""
    card = card or colour_rule_card()
    graph = graph or colour_rule_graph(card.tile_px, outputs=card.outputs)
    side = card.tile_px
    tiles = np.stack([np.full((side, side, 3), grey, np.uint8) for grey in tiles_grey])
    names = [value.name for value in graph.graph.output]
    outputs = dict(zip(names, ReferenceEvaluator(graph).run(names, {"tiles": tiles}), strict=True))
    golden = Golden(tiles, np.zeros((len(tiles), card.patient_columns)), outputs, None)
    return seal_bundle(folder, card=card, graphs={"fp32": graph.SerializeToString()}, golden=golden, parity=[])


def minimal_card() -> ModelCard:
    """What somebody writes by hand in eight lines."""
    return ModelCard.model_validate(
        {
            "name": "minimal",
            "classes": ["normal", "tumour"],
            "malignant": ["tumour"],
            "tile_px": 224,
            "um_per_px": 0.5,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "resize": "pillow-bilinear",
        }
    )


def tampered(bundle: Path, target: Path, name: str, content: bytes | None, *, resealed: bool = True) -> Path:
    """A copy of a bundle with one file replaced (None: removed), its checksums made again or not."""
    shutil.copytree(bundle, target)
    if content is None:
        (target / name).unlink()
    else:
        (target / name).write_bytes(content)
    if resealed:
        contents = {path.name: path.read_bytes() for path in target.iterdir() if path.name != CHECKSUMS}
        (target / CHECKSUMS).write_bytes(checksum_lines(contents))
    return target


def with_card(bundle: Path, target: Path, **changes: Any) -> Path:
    """A copy of a bundle with other values in its card, sealed again."""
    card = json.loads((bundle / "card.json").read_text()) | changes
    return tampered(bundle, target, "card.json", json.dumps(card).encode())
