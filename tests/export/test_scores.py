"""What a model's scores are is known from its last operators, asked for, or refused; nothing is squashed twice."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from own_models_for_tests import MEAN, SIDE, STD, card, linear_onnx, linear_probabilities, random_tiles

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import UsageError
from mminfer_export.ending import ending_of
from mminfer_export.from_onnx import write_from_onnx
from mminfer_export.sample_tiles import Samples

TILES = random_tiles(4)
ONE = np.float32(1)


def ending_with(*nodes, classes=2, shape=None, **constants):
    """`linear_onnx` and these nodes, from `logits` to `scores`."""
    model = linear_onnx(classes=classes)
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.extend(helper.make_node(kind, takes, gives, **more) for kind, takes, gives, more in nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    if shape is not None:
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", *shape]))
    return model


def chain(*kinds, classes=2, shape=None, **constants):
    """Nodes one behind the other; each is (operator, further inputs, attributes) or an operator."""
    steps = [(kind, [], {}) if isinstance(kind, str) else kind for kind in kinds]
    names = ["logits", *(f"v{i}" for i in range(1, len(steps))), "scores"]
    nodes = [(k, [names[i], *more], [names[i + 1]], attributes) for i, (k, more, attributes) in enumerate(steps)]
    return ending_with(*nodes, classes=classes, shape=shape, **constants)


def complement(classes=1):
    """P(first) and P(second) of one sigmoid."""
    return ending_with(
        ("Sigmoid", ["logits"], ["p"], {}), ("Sub", ["one", "p"], ["q"], {}),
        ("Concat", ["q", "p"], ["scores"], {"axis": 1}), classes=classes, shape=[2], one=ONE,
    )  # fmt: skip


def golden(folder, model, **changes):
    """The bundle's probabilities of the second class, sorted, and those of a sigmoid of one logit."""
    write_from_onnx(folder, model.SerializeToString(), card(), samples=Samples(TILES, "4 tiles"), **changes)
    return np.sort(open_bundle(folder).golden.outputs["probabilities"][:, 1])


def one_column():
    """P(second class) of `linear_onnx(classes=1)`, in float64."""
    rng = np.random.default_rng(4)
    weight, bias = rng.normal(size=(3, 1)), rng.normal(size=1)
    colour = ((TILES / 255 - np.array(MEAN)) / np.array(STD)).mean((1, 2))
    return np.sort(1 / (1 + np.exp(-(colour @ weight + bias)))[:, 0])


def softmax_of(logits):
    values = np.exp(logits)
    return values / values.sum(1, keepdims=True)


SOFTMAX = ("Softmax", [], {"axis": 1})
MAP = {"shape": [2, 1, 1], "sides": np.array([2, 3])}


@pytest.mark.parametrize(
    "model",
    [
        chain(SOFTMAX),
        chain(SOFTMAX, "Identity"),
        chain(SOFTMAX, ("Clip", ["low", "high"], {}), low=np.float32(1e-7), high=ONE),
        chain(("LogSoftmax", [], {"axis": 1})),
        chain(SOFTMAX, "Log"),
        chain(("Unsqueeze", ["sides"], {}), **MAP),
        chain(("Unsqueeze", ["sides"], {}), SOFTMAX, **MAP),
        chain(("Unsqueeze", ["sides"], {}), "GlobalAveragePool", ("Squeeze", ["sides"], {}), sides=np.array([2, 3])),
        chain(("Div", ["two"], {}), ("Add", ["shift"], {}), ("Mul", ["two"], {}), two=ONE * 2, shift=ONE),
    ],
)
def test_scores_of_each_class_are_known_from_the_last_operators(tmp_path, model):
    wanted = np.sort(linear_probabilities(TILES)[:, 1])
    assert np.ptp(wanted) > 0.2
    np.testing.assert_allclose(golden(tmp_path / "m.mminfer", model), wanted, rtol=0, atol=1e-5)


def constant_in_an_attribute():
    """`complement`, whose 1 is an attribute."""
    model = complement()
    del model.graph.initializer[-1]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["one"], value_float=1.0))
    return model


@pytest.mark.parametrize("scores", ["auto", "probabilities"])
@pytest.mark.parametrize(
    "model",
    [
        chain("Sigmoid", classes=1),
        chain("Sigmoid", "Identity", classes=1),
        chain("Sigmoid", ("Squeeze", ["side"], {}), classes=1, shape=[], side=np.array([1])),
        complement(),
        constant_in_an_attribute(),
    ],
)
def test_one_sigmoid_is_the_probability_of_the_second_class(tmp_path, model, scores):
    np.testing.assert_allclose(golden(tmp_path / "m.mminfer", model, scores=scores), one_column(), rtol=0, atol=1e-5)


TANH = chain("Tanh", classes=1)
HUNDRED = {"hundred": ONE * 100}
PERCENT = chain(SOFTMAX, ("Mul", ["hundred"], {}), **HUNDRED)
ONE_PERCENT = chain("Sigmoid", ("Mul", ["hundred"], {}), classes=1, **HUNDRED)


def sigmoid_by_hand(classes=1):
    """A sigmoid that no operator names."""
    return ending_with(
        ("Neg", ["logits"], ["n"], {}), ("Exp", ["n"], ["e"], {}), ("Add", ["e", "one"], ["d"], {}),
        ("Div", ["one", "d"], ["scores"], {}), classes=classes, one=ONE,
    )  # fmt: skip


def softmax_by_hand(*more, shift=False, **changes):
    """A softmax that no operator names, with the largest subtracted or not, and with these nodes from `p` on."""
    name = "p" if more else "scores"
    nodes = [("ReduceMax", ["logits", "axis"], ["max"], {}), ("Sub", ["logits", "max"], ["v"], {})] if shift else []
    nodes += [
        ("Exp", ["v" if shift else "logits"], ["e"], {}), ("ReduceSum", ["e", "axis"], ["sum"], {}),
        ("Div", ["e", "sum"], [name], {}),
    ]  # fmt: skip
    return ending_with(*nodes, *more, axis=np.array([1]), **changes)


BY_HAND = sigmoid_by_hand()
STABLE = ending_with(
    ("Abs", ["logits"], ["a"], {}), ("Neg", ["a"], ["n"], {}), ("Exp", ["n"], ["e"], {}),
    ("Add", ["e", "one"], ["d"], {}), ("Div", ["one", "d"], ["high"], {}), ("Div", ["e", "d"], ["low"], {}),
    ("Greater", ["logits", "zero"], ["above"], {}), ("Where", ["above", "high", "low"], ["scores"], {}),
    classes=1, one=ONE, zero=ONE * 0,
)  # fmt: skip
"""The same without overflow."""
HALF_TANH = chain(
    ("Mul", ["half"], {}), "Tanh", ("Add", ["one"], {}), ("Mul", ["half"], {}), classes=1, half=ONE / 2, one=ONE
)
SELECTED = softmax_by_hand(("MatMul", ["p", "second"], ["scores"], {}), shape=[1], second=np.float32([[0], [1]]))
LOG_SIGMOID = chain("Neg", "Softplus", "Neg", classes=1)
CLASS_NUMBER = chain(("ArgMax", [], {"axis": 1}), ("Cast", [], {"to": TensorProto.FLOAT}), shape=[1])
TWO = {"two": np.array([2])}
HIGHEST = ending_with(("TopK", ["logits", "two"], ["scores", "which"], {"axis": 1}), **TWO)
SURE = chain(SOFTMAX, ("ReduceMax", ["side"], {"keepdims": 1}), shape=[1], side=np.array([1]))
LOG_COLUMN = chain(("LogSoftmax", [], {"axis": 1}), ("Gather", ["i"], {"axis": 1}), shape=[1], i=np.array([1]))
MERGED = chain(SOFTMAX, ("MatMul", ["merge"], {}), classes=3, shape=[2], merge=np.float32([[1, 0], [0, 1], [0, 1]]))
"""Three classes become two after the softmax."""


@pytest.mark.parametrize(
    "model", [TANH, BY_HAND, MERGED, SELECTED, chain("Relu"), chain("Sigmoid", ("Mul", ["two"], {}), two=ONE * 2)]
)
def test_scores_that_the_file_does_not_explain_are_asked_for(tmp_path, model):
    with pytest.raises(UsageError, match=r"Say it: --scores logits .* --scores probabilities"):
        golden(tmp_path / "m.mminfer", model)


def test_scores_that_were_asked_for_are_what_the_user_says(tmp_path):
    np.testing.assert_allclose(
        golden(tmp_path / "one.mminfer", BY_HAND, scores="probabilities"), one_column(), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        golden(tmp_path / "three.mminfer", MERGED, scores="probabilities"),
        np.sort(linear_probabilities(TILES, 3)[:, 1:].sum(1)), rtol=0, atol=1e-5,
    )  # fmt: skip


LIKE = r"among them black, white and noise.* like"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (BY_HAND, f"{LIKE} probabilities: a second sigmoid would flatten them. Instead use --scores probabilities"),
        (STABLE, f"{LIKE} probabilities"),
        (HALF_TANH, f"{LIKE} probabilities"),
        (chain(("Clip", ["low", "high"], {}), classes=1, low=ONE * 0, high=ONE), f"{LIKE} probabilities"),
        (SELECTED, f"{LIKE} probabilities"),
        (CLASS_NUMBER, f"{LIKE} probabilities"),
        (sigmoid_by_hand(classes=2), f"{LIKE} independent probabilities"),
        (softmax_by_hand(), "a second softmax would flatten them. Use --scores probabilities"),
        (softmax_by_hand(shift=True), "a second softmax would flatten them"),
        (PERCENT, f"{LIKE} probabilities times 100. Divide by that"),
        (ONE_PERCENT, f"{LIKE} percentages. Divide by 100"),
        (TANH, f"{LIKE} a tanh"),
        (LOG_SIGMOID, "unlike logits, which have both signs"),
    ],
)
def test_scores_that_varied_tiles_show_to_be_no_logits_are_refused(tmp_path, model, words):
    with pytest.raises(UsageError, match=words):
        golden(tmp_path / "m.mminfer", model, scores="logits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "model",
    [
        chain(("Clip", ["low", "high"], {}), low=ONE * -20, high=ONE * 20),
        chain("Relu", ("Sub", ["ten"], {}), "Identity", ("Clip", ["low"], {}), ten=ONE * 10, low=ONE * -1e4),
        ending_with(
            ("ReduceLogSumExp", ["logits", "axis"], ["l"], {}), ("Sub", ["logits", "l"], ["scores"], {}),
            axis=np.array([1]),
        ),
    ],
    ids=["clipped", "shifted", "log-softmax by hand"],
)  # fmt: skip
def test_logits_that_no_operator_names_are_taken_as_the_user_says(tmp_path, model):
    actual = golden(tmp_path / "m.mminfer", model, scores="logits")
    assert 0 < actual.min() < actual.max() < 1


def test_a_linear_layer_gives_logits_even_if_all_are_within_0_and_1(tmp_path):
    model = linear_onnx(classes=1)
    weight, bias = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(np.full((3, 1), 1e-3, np.float32), "weight"))
    bias.CopyFrom(numpy_helper.from_array(np.full(1, 0.5, np.float32), "bias"))
    actual = golden(tmp_path / "m.mminfer", model, scores="logits")
    np.testing.assert_allclose(actual, 1 / (1 + np.exp(-0.5)), rtol=0, atol=2e-3)


def test_the_scores_of_uint8_tiles_are_looked_at_within_the_range_of_pixels(tmp_path):
    model = sigmoid_by_hand()
    model.graph.node.insert(0, helper.make_node("Cast", ["given"], ["cast"], to=TensorProto.FLOAT))
    model.graph.node.insert(1, helper.make_node("Transpose", ["cast"], ["turned"], perm=[0, 3, 1, 2]))
    model.graph.node.insert(2, helper.make_node("Div", ["turned", "white"], ["images"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "white"))
    given = helper.make_tensor_value_info("given", TensorProto.UINT8, ["n", SIDE, SIDE, 3])
    model.graph.input[0].CopyFrom(given)
    with pytest.raises(UsageError, match=r"on 23 tiles.* like probabilities"):
        golden(tmp_path / "m.mminfer", model, scores="logits")


@pytest.mark.parametrize(
    ("model", "scores", "words"),
    [
        (chain("Sigmoid"), "auto", "a Sigmoid for each of 2 classes: independent"),
        (chain("Sigmoid"), "logits", "a Sigmoid for each of 2 classes: independent"),
        (chain("Sigmoid"), "probabilities", "a Sigmoid for each of 2 classes: independent"),
        (chain("Sigmoid", classes=1), "logits", "second sigmoid would flatten them. Use --scores probabilities"),
        (chain(SOFTMAX, "Identity"), "logits", "second softmax would flatten them. Use --scores probabilities"),
        (linear_onnx(), "probabilities", "are not probabilities: it ends with Gemm. Use --scores logits"),
        (linear_onnx(classes=1), "probabilities", "are not probabilities: it ends with Gemm. Use --scores logits"),
        (TANH, "probabilities", "must be within 0 and 1"),
        (chain(SOFTMAX, classes=1), "auto", "over one column, which is always 1"),
        (chain(("Softmax", [], {"axis": 0})), "auto", "over one value, always 1. Correct its axis"),
        (chain(("LogSoftmax", [], {"axis": 0})), "auto", "each score is 0. Correct its axis"),
        (HIGHEST, "auto", "ends with TopK: it gives its highest scores"),
        (HIGHEST, "logits", "whatever class they are of"),
        (SURE, "probabilities", "ends with ReduceMax: it gives its highest scores"),
        (LOG_COLUMN, "auto", "the logarithm of one probability"),
        (CLASS_NUMBER, "probabilities", "exactly 0 or 1: these are class numbers"),
        (PERCENT, "probabilities", "If they are percentages, divide by 100"),
        (sigmoid_by_hand(classes=2), "probabilities", "each row must .* sum to 1"),
    ],
)
def test_what_contradicts_the_file_is_refused_and_nothing_is_written(tmp_path, model, scores, words):
    with pytest.raises(UsageError, match=words):
        golden(tmp_path / "m.mminfer", model, scores=scores)
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_a_long_graph_with_many_ways_is_found_at_once():
    graph = chain(*["Identity"] * 1500).graph
    for node in graph.node[10:50]:
        node.op_type = "Mean"
        node.input.append(node.input[0])
    assert ending_of(graph, "scores").kind == "logits"
