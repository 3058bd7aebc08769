"""Bundles whose graph is wrong in one place, as exports have been seen to be: what `verify` has to catch."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from bundles_for_tests import colour_rule_card, tampered
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from melanoma_infer.bundle.bundle import Bundle, Golden
from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.scene import make_scene
from mminfer_export.seal import seal_bundle

Edit = Callable[[onnx.ModelProto], None]


def edited(bundle: Path, target: Path, edit: Edit, precision: str = "fp32", source: str | None = None) -> Path:
    """A copy of a bundle whose graph of a precision was edited, sealed again."""
    model = onnx.load_model_from_string((bundle / f"model.{source or precision}.onnx").read_bytes())
    edit(model)
    return tampered(bundle, target, f"model.{precision}.onnx", model.SerializeToString())


def without(bundle: Path, target: Path, name: str) -> Path:
    """A copy of a bundle without one of its files, sealed again."""
    return tampered(bundle, target, name, None)


def swap_colours(model: onnx.ModelProto) -> None:
    """BGR in place of RGB."""
    cast = next(node for node in model.graph.node if node.op_type == "Cast" and node.input[0] == "tiles")
    name = cast.output[0]
    cast.output[0] = "as_read"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "bgr"))
    at = list(model.graph.node).index(cast) + 1
    model.graph.node.insert(at, helper.make_node("Gather", ["as_read", "bgr"], [name], axis=3))


def forget_255(model: onnx.ModelProto) -> None:
    """No division by 255."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        tensor = values.get(node.input[1]) if node.op_type == "Div" else None
        if tensor is not None and numpy_helper.to_array(tensor).max() == 255:
            tensor.CopyFrom(numpy_helper.from_array(np.ones_like(numpy_helper.to_array(tensor)), tensor.name))
            return
    raise AssertionError("no division by 255")


def swap_attention_inputs(model: onnx.ModelProto) -> None:
    """The attention's average and maximum exchanged: W's two input channels."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "attention.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:, ::-1].copy(), tensor.name))


def drop_bias(place: int) -> Edit:
    """A convolution of the backbone without its bias."""

    def edit(model: onnx.ModelProto) -> None:
        node = [node for node in model.graph.node if node.op_type == "Conv"][place]
        assert len(node.input) == 3
        del node.input[2]

    return edit


def as_int8(model: onnx.ModelProto) -> None:
    """Every UINT8 value read as INT8: what is above 127 steps is cut off."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    changed = 0
    for tensor in stored.values():
        if tensor.data_type == TensorProto.UINT8 and numpy_helper.to_array(tensor).ndim == 0:
            changed += 1
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int8), tensor.name))
    assert changed


def uint8_graph(bundle: Bundle, tiles: NDArray[np.uint8], convolutions: int = 53) -> bytes:
    """The fp32 graph with the first convolutions of its backbone quantised by ONNX Runtime, UINT8 after each ReLU."""
    from onnxruntime import quantization

    class Tiles(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.waiting = [{"tiles": tile[None]} for tile in tiles]

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return self.waiting.pop() if self.waiting else None

    model = onnx.load_model_from_string(bundle.graphs["fp32"])
    wanted = [node.name for node in model.graph.node if node.op_type == "Conv"][1:convolutions]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        quantization.quantize_static(
            source, target, Tiles(), quant_format=quantization.QuantFormat.QDQ, nodes_to_quantize=wanted,
            per_channel=True, activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            extra_options={"QuantizeBias": False},
        )  # fmt: skip
        return target.read_bytes()


def small_net_graph(tile_px: int, seed: int = 5) -> onnx.ModelProto:
    """(tiles / 255 − 0.75) / 0.2 → two convolutions with ReLU → global average → two classes; no weights of ours."""
    rng = np.random.default_rng(seed)
    weights = {
        "first": rng.normal(0, 0.2, (16, 3, 5, 5)),
        "first_bias": rng.normal(0.2, 0.3, 16),
        "second": rng.normal(0, 0.12, (16, 16, 3, 3)),
        "second_bias": rng.normal(0.2, 0.3, 16),
        "last": rng.normal(0, 0.5, (16, 2)),
        "last_bias": np.zeros(2),
        "white": np.array(255.0),
        "mean": np.array(0.75),
        "std": np.array(0.2),
    }
    nodes = [
        helper.make_node("Cast", ["tiles"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["nchw", "white"], ["unit"]),
        helper.make_node("Sub", ["unit", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Conv", ["normalised", "first", "first_bias"], ["conv1"], name="conv1", strides=[2, 2]),
        helper.make_node("Relu", ["conv1"], ["relu1"], name="relu1"),
        helper.make_node("Conv", ["relu1", "second", "second_bias"], ["conv2"], name="conv2", strides=[2, 2]),
        helper.make_node("Relu", ["conv2"], ["relu2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["relu2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["vector"]),
        helper.make_node("Gemm", ["vector", "last", "last_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small_net",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", tile_px, tile_px, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def small_bundle(folder: Path) -> Path:
    """A sealed bundle of `small_net_graph`: tiles of 256 µm in 64 px, two classes, golden tiles that were drawn."""
    card = colour_rule_card(name="small net", mean=(0.75, 0.75, 0.75), std=(0.2, 0.2, 0.2))
    graph = small_net_graph(card.tile_px)
    scene = make_scene(3, "melanoma", (9000.0, 6000.0))
    tiles = np.stack([draw(scene, RectPx(x, 400, card.tile_px, card.tile_px), 4.0) for x in (400, 900, 1200, 1600)])
    (outputs,) = ReferenceEvaluator(graph).run(["probabilities"], {"tiles": tiles})
    golden = Golden(tiles, np.zeros((len(tiles), 0)), {"probabilities": outputs}, None)
    return seal_bundle(folder, card=card, graphs={"fp32": graph.SerializeToString()}, golden=golden, parity=[])
