"""Bias correction: the int8 backbone has the float backbone's means, and is closer to float on other tiles too."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from melanoma_infer.engines import load_engine
from mminfer_export.backbone import Backbone
from mminfer_export.bias_correction import correct_bias, last_activation, shift_to
from mminfer_export.quantize import quantize
from mminfer_export.tapped import tapped

KEPT = 24
"""Layers in float, so that what is left to correct is not noise alone at width 8."""


@pytest.fixture(scope="module")
def int8(calibration):
    return quantize(calibration, [layer.name for layer in calibration.layers[:KEPT]])


@pytest.fixture(scope="module")
def corrected(small, calibration, int8):
    return correct_bias(int8, calibration.model, small.set_on[:12])


def backbone_means(content, tiles):
    """The mean over these tiles of each channel after the backbone's last activation."""
    model = onnx.load_from_string(content)
    value = Backbone(model.graph).last_activation.output[0]
    session = tapped(model, [value])
    return np.mean([session.run([value], {"tiles": tile[None]})[0].mean((0, 2, 3)) for tile in tiles], axis=0)


def without_its_last_bias(content):
    model = onnx.load_from_string(content)
    del Backbone(model.graph).last_convolution.input[2:]
    return model.SerializeToString()


def test_the_last_convolution_is_the_last_block_s_third(small):
    last = Backbone(onnx.load_from_string(small.bundle.graphs["fp32"]).graph).last_convolution
    assert last.input[1].startswith("backbone.layer4.2.conv3")


@pytest.mark.parametrize("before", [bytes, without_its_last_bias])
def test_the_backbone_has_the_float_backbone_s_means(small, calibration, int8, before):
    tiles, content = small.set_on[:12], before(int8)
    exact = backbone_means(calibration.model.SerializeToString(), tiles)
    after = correct_bias(content, calibration.model, tiles)
    assert np.abs(backbone_means(content, tiles) - exact).max() > 1e-2
    np.testing.assert_allclose(backbone_means(after, tiles), exact, rtol=0, atol=1e-5)


def test_nothing_but_one_bias_changes(int8, corrected):
    before, after = ({t.name: numpy_helper.to_array(t) for t in _graph(c).initializer} for c in (int8, corrected))
    (dropped,) = set(before) - set(after)
    (added,) = set(after) - set(before)
    assert before[dropped].shape == after[added].shape
    assert all(np.array_equal(before[name], after[name]) for name in set(before) & set(after))
    assert [node.op_type for node in _graph(int8).node] == [node.op_type for node in _graph(corrected).node]


def test_features_of_other_tiles_are_closer_to_float(small, int8, corrected):
    def error(content):
        bundle = replace(small.bundle, graphs={**small.bundle.graphs, "int8": content})
        outputs = load_engine(bundle, "openvino", precision="int8").engine.infer(small.tiles)
        return float(np.square(outputs["features"] - small.outputs["features"]).mean())

    assert error(corrected) < 0.9 * error(int8)


@pytest.mark.slow
def test_an_int8_graph_gives_the_same_bits_however_often_it_is_loaded(small, corrected):
    """With two streams of one compiled graph, one in seventy loads gave features that were all wrong."""
    bundle = replace(small.bundle, graphs={**small.bundle.graphs, "int8": corrected})
    tiles = small.tiles[:4]
    first = load_engine(bundle, "openvino", precision="int8", threads=2).engine.infer(tiles)
    for _ in range(200):
        again = load_engine(bundle, "openvino", precision="int8", threads=2).engine.infer(tiles)
        assert all(np.array_equal(first[name], again[name]) for name in first)


def relu(values):
    return np.maximum(values, np.float32(0.0))


def test_a_shift_takes_the_mean_after_the_activation_to_what_is_wanted():
    rng = np.random.default_rng(0)
    exact = rng.normal(rng.normal(size=(64, 1)), 1.0, (64, 4000)).astype(np.float32)
    noisy = exact + rng.normal(0.3, 0.5, exact.shape).astype(np.float32)
    wanted = relu(exact).mean(1)
    shift = shift_to(wanted, noisy, relu)
    np.testing.assert_allclose(relu(noisy + shift[:, None]).mean(1), wanted, rtol=0, atol=1e-5)
    assert np.abs(relu(noisy + (exact - noisy).mean(1)[:, None]).mean(1) - wanted).max() > 0.02  # plain means do not


def test_a_channel_that_never_gets_through_is_left_alone():
    values = np.full((1, 10), -1e6, np.float32)
    assert shift_to(np.array([0.1]), values, relu) == 0
    assert shift_to(np.array([0.0]), values, relu) == 0


@pytest.mark.parametrize(
    ("kind", "bounds", "attributes", "wanted"),
    [
        ("Relu", [], {}, [0.0, 2.0, 9.0]),
        ("LeakyRelu", [], {"alpha": 0.5}, [-1.5, 2.0, 9.0]),
        ("Clip", [0.0, 6.0], {}, [0.0, 2.0, 6.0]),
    ],
)
def test_any_activation_that_ends_a_backbone_is_known(kind, bounds, attributes, wanted):
    names = [f"bound{i}" for i in range(len(bounds))]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["sums"], name="conv"),
        helper.make_node(kind, ["sums", *names], ["y"], name="end", **attributes),
    ]
    stored = [numpy_helper.from_array(np.float32(value), name) for name, value in zip(names, bounds, strict=True)]
    graph = helper.make_graph(nodes, "backbone", [], [], stored)
    np.testing.assert_allclose(last_activation(graph)(np.array([-3, 2, 9], np.float32)), wanted)


def _graph(content):
    return onnx.load_from_string(content).graph
