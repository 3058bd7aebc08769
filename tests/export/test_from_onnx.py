"""An ONNX file and a card become a bundle: what is missing is added, what may not be run is refused unread."""

from __future__ import annotations

import os
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from own_models_for_tests import (
    SIDE,
    SmallNet,
    card,
    expected,
    linear_onnx,
    linear_probabilities,
    random_tiles,
)

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine, quiet
from melanoma_infer.errors import BundleError, OutputError, ParityError, UsageError
from mminfer_export import from_onnx
from mminfer_export.from_onnx import write_from_onnx
from mminfer_export.sample_tiles import Samples

TILES = random_tiles(6)
SAMPLES = Samples(TILES, "6 tiles")


def write(folder, model, made=None, **changes):
    return write_from_onnx(folder, model.SerializeToString(), made or card(), samples=SAMPLES, **changes)


def answers(folder, engine="openvino", tiles=TILES):
    return load_engine(open_bundle(folder), engine).engine.infer(tiles)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("ending", [None, "Softmax"])
@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("side", [SIDE, "side"])
def test_float_images_get_normalisation_and_logits_a_softmax(tmp_path, engine, ending, batch, side):
    write(tmp_path / "m.mminfer", linear_onnx(ending=ending, batch=batch, side=side))
    wanted = linear_probabilities(TILES)
    assert np.ptp(wanted[:, 1]) > 0.2
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer", engine)["probabilities"], wanted, rtol=0, atol=1e-6)


def test_a_convolutional_network_of_pytorch_s_older_exporter_is_taken(tmp_path):
    net, path = SmallNet().eval(), tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is old is why it is here
        torch.onnx.export(
            net, (torch.zeros(1, 3, SIDE, SIDE),), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    write(tmp_path / "m.mminfer", onnx.load(path))
    np.testing.assert_allclose(
        answers(tmp_path / "m.mminfer")["probabilities"], expected(net, TILES), rtol=0, atol=1e-5
    )


def uint8_onnx(*, transposes_first=False):
    """The colour rule's kind: tiles uint8 NHWC, which does all by itself."""
    model = linear_onnx()
    first = [
        helper.make_node("Cast", ["given"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["images"], perm=[0, 3, 1, 2]),
    ]
    if transposes_first:
        first = [
            helper.make_node("Transpose", ["given"], ["turned"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["turned"], ["images"], to=TensorProto.FLOAT),
        ]
    nodes = [*first, *model.graph.node]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(helper.make_tensor_value_info("given", TensorProto.UINT8, ["n", SIDE, SIDE, 3]))
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / 255, "weight"))
    return model


def uint8_probabilities():
    """What `uint8_onnx` must give behind a softmax, in float64."""
    rng = np.random.default_rng(4)
    weight, bias = rng.normal(size=(3, 2)), rng.normal(size=2)
    logits = np.exp(TILES.mean((1, 2)) / 255 @ weight + bias)
    return logits / logits.sum(1, keepdims=True)


def test_uint8_tiles_get_nothing_but_a_softmax(tmp_path):
    write(tmp_path / "m.mminfer", uint8_onnx())
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], uint8_probabilities(), atol=1e-5)


def test_uint8_tiles_that_are_transposed_are_cast_before(tmp_path):
    write(tmp_path / "m.mminfer", uint8_onnx(transposes_first=True))
    graph = onnx.load_from_string(open_bundle(tmp_path / "m.mminfer").graphs["fp32"]).graph
    assert [node.op_type for node in graph.node[:2]] == ["Cast", "Transpose"]
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], uint8_probabilities(), atol=1e-5)


def test_one_logit_for_two_classes_gets_a_sigmoid(tmp_path):
    write(tmp_path / "m.mminfer", linear_onnx(classes=1))
    rng = np.random.default_rng(4)
    weight, bias = rng.normal(size=(3, 1)), rng.normal(size=1)
    colour = ((TILES / 255 - np.array(card().mean)) / np.array(card().std)).mean((1, 2))
    second = 1 / (1 + np.exp(-(colour @ weight + bias)))
    wanted = np.concatenate([1 - second, second], axis=1)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-6)


def test_outputs_that_the_card_names_are_kept_under_their_names(tmp_path):
    made = card(outputs=("depth_mm",))
    write(tmp_path / "m.mminfer", linear_onnx(outputs=("depth_mm",)), made)
    bundle = open_bundle(tmp_path / "m.mminfer")
    colour = ((TILES / 255 - np.array(made.mean)) / np.array(made.std)).mean((1, 2))
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["depth_mm"], colour.sum(1), rtol=0, atol=1e-5)
    assert bundle.parity_of("openvino", "fp32").max_dmm < 1e-5


def test_the_graph_begins_with_cast_then_transpose_and_takes_any_number_of_tiles(tmp_path):
    write(tmp_path / "m.mminfer", linear_onnx(batch=1))
    graph = onnx.load_from_string(open_bundle(tmp_path / "m.mminfer").graphs["fp32"]).graph
    assert [node.op_type for node in graph.node[:5]] == ["Cast", "Transpose", "Div", "Sub", "Div"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_model_that_is_fixed_to_one_tile_stays_so(tmp_path):
    model = linear_onnx(batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3], np.int64), "fixed"))
    model.graph.node[2].input[0] = "one_row"
    model.graph.node.insert(2, helper.make_node("Reshape", ["colour", "fixed"], ["one_row"]))
    write(tmp_path / "m.mminfer", model)
    graph = onnx.load_from_string(open_bundle(tmp_path / "m.mminfer").graphs["fp32"]).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    wanted = linear_probabilities(TILES)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-6)


def test_what_the_exporter_noted_about_its_machine_is_gone(tmp_path):
    model = linear_onnx()
    model.producer_name, model.graph.doc_string = "torch", "/home/somebody/train.py"
    model.graph.node[0].doc_string = "/home/somebody/net.py"
    write(tmp_path / "m.mminfer", model)
    assert b"somebody" not in open_bundle(tmp_path / "m.mminfer").graphs["fp32"]


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        (linear_onnx(classes=3), {}, "the card names 2 classes"),
        (linear_onnx(opset=12), {}, "opset"),
        (linear_onnx(side=64), {}, "takes float .* tile_px"),
        (linear_onnx(batch=4), {}, "fixed at 4. .* dynamic_shapes"),
        (linear_onnx(), {"outputs": ("depth_mm",)}, "the ONNX file lacks"),
        (linear_onnx(outputs=("depth_mm",)), {}, "Export it with one, the classes' scores"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, model, changes, words):
    with pytest.raises((BundleError, UsageError), match=words):
        write(tmp_path / "m.mminfer", model, card(**changes))
    assert list(tmp_path.iterdir()) == []


def channels_last(model, *, declared=True):
    """The model with float tiles (N, H, W, 3), as Keras has them."""
    model.graph.node.insert(0, helper.make_node("Transpose", ["given"], ["images"], perm=[0, 3, 1, 2]))
    sides = [SIDE, SIDE, 3] if declared else ["h", "w", "c"]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("given", TensorProto.FLOAT, ["n", *sides]))
    return model


@pytest.mark.parametrize("declared", [True, False])
def test_channels_last_tiles_are_normalised_in_that_order(tmp_path, declared):
    write(tmp_path / "m.mminfer", channels_last(linear_onnx(), declared=declared))
    wanted = linear_probabilities(TILES)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-6)


def in_half(model, *, cast=True):
    """The model with float16 scores."""
    if cast:
        model.graph.node[-1].output[0] = "single"
        model.graph.node.append(helper.make_node("Cast", ["single"], ["scores"], to=TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def test_scores_that_were_rounded_to_half_precision_are_taken_before_that(tmp_path):
    write(tmp_path / "m.mminfer", in_half(linear_onnx()))
    wanted = linear_probabilities(TILES)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-6)


def class_numbers():
    """A model that gives the number of the class."""
    model = linear_onnx()
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["scores"], axis=1))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


@pytest.mark.parametrize(("model", "words"), [(class_numbers, "is int64.* not class numbers")])
def test_outputs_of_another_type_are_refused(tmp_path, model, words):
    with pytest.raises(BundleError, match=words):
        write(tmp_path / "m.mminfer", model())


def test_domains_without_an_operator_and_open_sides_written_as_0_are_taken(tmp_path):
    model = linear_onnx(batch=0)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    write(tmp_path / "m.mminfer", model)
    wanted = linear_probabilities(TILES)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-6)


def test_scores_that_are_nan_are_named(tmp_path):
    model = linear_onnx(ending="Log")
    with pytest.raises(BundleError, match="NaN or infinity for a sample tile"):
        write(tmp_path / "m.mminfer", model, scores="logits")


def beginning_with(*steps):
    """The linear model behind these steps: (operator, constant)."""
    model, name = linear_onnx(), "images"
    for place, (kind, value) in enumerate(steps):
        constant = numpy_helper.from_array(np.float32(value).reshape(1, -1, 1, 1), f"c{place}")
        model.graph.initializer.append(constant)
        model.graph.node.insert(place, helper.make_node(kind, [name, constant.name], [f"s{place}"]))
        name = f"s{place}"
    model.graph.node[len(steps)].input[0] = name
    return model


WHITE, IMAGENET = ("Div", [255]), [("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])]


@pytest.mark.parametrize(
    ("steps", "changes", "words"),
    [
        ([WHITE], {}, r"divides by 255, as if it got 0 to 255. .* it gets -3.5 to 2.5. .* mean = \[0, 0, 0\] and std"),
        ([WHITE], {"mean": (0, 0, 0), "std": (1, 1, 1)}, "divides by 255"),
        ([("Mul", [1 / 255])], {}, "divides by 255"),
        ([("Div", [127.5]), ("Sub", [1])], {}, r"divides by 127\.5"),
        ([("Add", [-103.9, -116.8, -123.7])], {}, r"takes off 103\.9, 116\.8, 123\.7"),
        (IMAGENET, {}, r"as if it got 0 to 1. .* std = \[1, 1, 1\]"),
        ([IMAGENET[0], ("Mul", [1 / 0.229])], {}, "as if it got 0 to 1"),
        (IMAGENET, {"mean": (0, 0, 0), "std": (1 / 255,) * 3}, "it gets 0 to 255"),
    ],
)
def test_a_model_that_would_normalise_a_second_time_is_refused(tmp_path, steps, changes, words):
    with pytest.raises(UsageError, match=words):
        write(tmp_path / "m.mminfer", beginning_with(*steps), card(**changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        ([WHITE, ("Sub", [0.7, 0.5, 0.6]), ("Div", [0.2, 0.25, 0.2])], {"mean": (0, 0, 0), "std": (1 / 255,) * 3}),
        ([("Sub", [0.7, 0.5, 0.6]), ("Div", [0.2, 0.25, 0.2])], {"mean": (0, 0, 0), "std": (1, 1, 1)}),
        ([("Mul", [0.458, 0.448, 0.45]), ("Add", [0.03, -0.088, -0.188]), ("Sub", [0.03, -0.088, -0.188]),
          ("Div", [0.458, 0.448, 0.45])], {}),
    ],
    ids=["0 to 255", "0 to 1", "rescaled"],
)  # fmt: skip
def test_a_model_that_normalises_once_is_taken(tmp_path, steps, changes):
    write(tmp_path / "m.mminfer", beginning_with(*steps), card(**changes))
    wanted = linear_probabilities(TILES)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-5)


def minus_the_batch_s_mean(batch="batch"):
    """The colour of a tile less that of its batch, plus its own: 0 difference where all tiles are equal."""
    model = linear_onnx(batch=batch)
    model.graph.node[2].input[0] = "centred"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "rows"))
    more = [
        helper.make_node("ReduceMean", ["colour", "rows"], ["mean"]),
        helper.make_node("Sub", ["colour", "mean"], ["difference"]),
        helper.make_node("Add", ["difference", "colour"], ["centred"]),
    ]
    for place, node in enumerate(more):
        model.graph.node.insert(2 + place, node)
    return model


def test_a_model_that_mixes_the_tiles_of_a_batch_is_refused(tmp_path):
    with pytest.raises(BundleError, match="depends on the other tiles of its batch"):
        write(tmp_path / "m.mminfer", minus_the_batch_s_mean())
    one = Samples(TILES[:1], "1 tile")
    with pytest.raises(BundleError, match="depends on the other tiles of its batch"):
        write_from_onnx(tmp_path / "m.mminfer", minus_the_batch_s_mean().SerializeToString(), card(), samples=one)


def test_a_model_that_would_mix_a_batch_but_is_fixed_to_one_tile_stays_so(tmp_path):
    write(tmp_path / "m.mminfer", minus_the_batch_s_mean(batch=1))
    wanted = linear_probabilities(TILES)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-6)


def test_a_wrapped_graph_that_differs_from_the_file_is_refused(tmp_path, monkeypatch):
    """The file is run with pixels normalised by NumPy; the bundle's graph normalises by itself."""
    made = from_onnx.wrapped
    other = card(mean=(0.6, 0.5, 0.6))
    monkeypatch.setattr(
        from_onnx, "wrapped", lambda model, found, _, *more, **named: made(model, found, other, *more, **named)
    )
    with pytest.raises(ParityError, match="differs from the ONNX file as it was given"):
        write(tmp_path / "m.mminfer", linear_onnx())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path):
    (tmp_path / "m.mminfer").mkdir()
    with pytest.raises(OutputError):
        write(tmp_path / "m.mminfer", linear_onnx())


@pytest.fixture
def no_runtime(monkeypatch):
    """Every runtime fails the test when it is asked for."""
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setattr(quiet, name, lambda: pytest.fail("a runtime was opened"))


@pytest.mark.parametrize("location", ["absolute", "../weights.bin", "weights.bin", "link.bin"])
@pytest.mark.parametrize("place", ["initializer", "attribute", "branch", "sparse"])
@pytest.mark.usefixtures("no_runtime")
def test_data_in_another_file_is_refused_before_a_runtime_opens(tmp_path, monkeypatch, location, place):
    """The file is there and would be read: runtimes look in the current folder even when they are given bytes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.ones(6, np.float32).tobytes())
    os.symlink("weights.bin", tmp_path / "link.bin")
    outside = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3, 2])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(
        key="location", value=str(tmp_path / "weights.bin") if location == "absolute" else location
    )
    with pytest.raises(BundleError, match="another file"):
        write(tmp_path / "m.mminfer", with_tensor(outside, place))
    assert not (tmp_path / "m.mminfer").exists()


def with_tensor(tensor, place):
    """The linear model, holding a tensor where graphs hold tensors."""
    model = linear_onnx()
    graph = model.graph
    match place:
        case "initializer":
            graph.initializer.append(tensor)
        case "attribute":
            graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=tensor))
        case "branch":
            branch = helper.make_graph([], "branch", [], [], [tensor])
            graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch))
        case "sparse":
            graph.sparse_initializer.add(values=tensor, indices=numpy_helper.from_array(np.zeros(1, np.int64)))
    return model


@pytest.mark.parametrize("where", ["node", "function", "rubbish", "nan"])
@pytest.mark.usefixtures("no_runtime")
def test_what_no_engine_may_run_is_refused_before_a_runtime_opens(tmp_path, where):
    model = linear_onnx()
    match where:
        case "node":
            model.graph.node[1].domain = "com.example"
        case "function":
            model.functions.append(
                helper.make_function("", "Gemm", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [])
            )
        case "nan":
            model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((3, 2), np.nan, np.float32), "weight"))
    content = b"\x08\x0a rubbish" if where == "rubbish" else model.SerializeToString()
    with pytest.raises(BundleError):
        write_from_onnx(tmp_path / "m.mminfer", content, card(), samples=SAMPLES)
    assert list(tmp_path.iterdir()) == []


def batch_norm(training, opset=18, outputs=1):
    """The linear model with a batch normalisation of mean 0 and variance 1 after the first operator."""
    model = linear_onnx(opset=opset)
    for name, value in (("g", 1), ("b", 0), ("m", 0), ("v", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.full(3, value, np.float32), name))
    mode = {"training_mode": training} if opset > 13 else {}
    names = ["normal", "new_m", "new_v"][:outputs]
    model.graph.node.insert(1, helper.make_node("BatchNormalization", ["pooled", *"gbmv"], names, epsilon=0.0, **mode))
    model.graph.node[2].input[0] = "normal"
    return model


def dropout(flag):
    """The linear model with a Dropout; `flag` makes the nodes that give its training flag, the last one `training`."""
    model = linear_onnx()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "ratio"))
    nodes, stored = flag
    model.graph.initializer.extend(stored)
    drop = helper.make_node("Dropout", ["pooled", "ratio", "training"], ["dropped"])
    for place, node in enumerate([*nodes, drop]):
        model.graph.node.insert(1 + place, node)
    model.graph.node[2 + len(nodes)].input[0] = "dropped"
    return model


def stored_flag(value):
    return [], [numpy_helper.from_array(np.array(value), "training")]


def constant_flag(value):
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(value)))
    return [constant, helper.make_node("Identity", ["c"], ["training"])], []


def noise():
    """The linear model with noise on its input."""
    model = linear_onnx()
    model.graph.node.insert(0, helper.make_node("RandomNormalLike", ["images"], ["noise"]))
    model.graph.node.insert(1, helper.make_node("Add", ["images", "noise"], ["noisy"]))
    model.graph.node[2].input[0] = "noisy"
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (batch_norm(1, outputs=3), "BatchNormalization in training mode"),
        (batch_norm(1), "BatchNormalization in training mode"),
        (batch_norm(0, opset=13, outputs=3), "BatchNormalization in training mode"),
        (dropout(stored_flag(True)), "Dropout in training mode"),
        (dropout(constant_flag(True)), "Dropout in training mode"),
        (noise(), "RandomNormalLike"),
    ],
)
@pytest.mark.usefixtures("no_runtime")
def test_a_model_in_training_mode_is_refused_before_a_runtime_opens(tmp_path, model, words):
    with pytest.raises(BundleError, match=rf"{words}.* model\.eval\(\)"):
        write(tmp_path / "m.mminfer", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [batch_norm(0), dropout(stored_flag(False)), dropout(constant_flag(False))])
def test_the_same_operators_in_evaluation_mode_are_taken(tmp_path, model):
    write(tmp_path / "m.mminfer", model)
    wanted = linear_probabilities(TILES)
    np.testing.assert_allclose(answers(tmp_path / "m.mminfer")["probabilities"], wanted, rtol=0, atol=1e-6)


def test_without_onnx_runtime_openvino_is_the_reference(tmp_path, monkeypatch):
    def missing():
        raise ImportError("not installed")

    monkeypatch.setattr(quiet, "onnxruntime", missing)
    write(tmp_path / "m.mminfer", linear_onnx())
    bundle = open_bundle(tmp_path / "m.mminfer")
    assert bundle.parity[0].engine == "openvino"
    assert bundle.parity_of("onnxruntime", "fp32") is None
    np.testing.assert_allclose(
        bundle.golden.outputs["probabilities"][:, 1],
        np.sort(linear_probabilities(TILES)[:, 1])[[0, 2, 3, 5]],
        rtol=0,
        atol=1e-6,
    )
