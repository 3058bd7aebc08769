"""int8's trunk at the float trunk's means: with and without a bias, and closer to float on tiles it never saw."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from melanoma_infer.engines import load_engine
from mminfer_export.quantize import calibrate, quantize
from mminfer_export.settle import settle
from mminfer_export.tapped import tapped
from mminfer_export.trunk import Trunk

KEPT = 24
"""Layers in float, so that what is left to settle is not noise alone at width 8."""


@pytest.fixture(scope="module")
def calibration(small):
    return calibrate(small.bundle.graphs["fp32"], small.set_on[:12])


@pytest.fixture(scope="module")
def int8(calibration):
    return quantize(calibration, [layer.name for layer in calibration.layers[:KEPT]])


@pytest.fixture(scope="module")
def settled(small, calibration, int8):
    return settle(int8, calibration.model, small.set_on[:12])


def trunk_means(content, tiles):
    """The mean over these tiles of each channel that the trunk's last activation takes."""
    model = onnx.load_from_string(content)
    value = Trunk(model.graph).last_activation.input[0]
    session = tapped(model, [value])
    return np.mean([session.run([value], {"tiles": tile[None]})[0].mean((0, 2, 3)) for tile in tiles], axis=0)


def without_its_last_bias(content):
    model = onnx.load_from_string(content)
    del Trunk(model.graph).last_convolution.input[2:]
    return model.SerializeToString()


def test_the_last_convolution_is_the_last_block_s_third(small):
    last = Trunk(onnx.load_from_string(small.bundle.graphs["fp32"]).graph).last_convolution
    assert last.input[1].startswith("trunk.layer4.2.conv3")


@pytest.mark.parametrize("before", [bytes, without_its_last_bias])
def test_the_trunk_has_the_float_trunk_s_means(small, calibration, int8, before):
    tiles, content = small.set_on[:12], before(int8)
    exact = trunk_means(calibration.model.SerializeToString(), tiles)
    after = settle(content, calibration.model, tiles)
    assert np.abs(trunk_means(content, tiles) - exact).max() > 1e-2
    np.testing.assert_allclose(trunk_means(after, tiles), exact, rtol=0, atol=1e-5)


def test_nothing_but_one_bias_changes(int8, settled):
    before, after = ({t.name: numpy_helper.to_array(t) for t in _graph(c).initializer} for c in (int8, settled))
    (dropped,) = set(before) - set(after)
    (added,) = set(after) - set(before)
    assert before[dropped].shape == after[added].shape
    assert all(np.array_equal(before[name], after[name]) for name in set(before) & set(after))
    assert [node.op_type for node in _graph(int8).node] == [node.op_type for node in _graph(settled).node]


def test_features_of_other_tiles_are_closer_to_float(small, int8, settled):
    def error(content):
        bundle = replace(small.bundle, graphs={**small.bundle.graphs, "int8": content})
        outputs = load_engine(bundle, "openvino", precision="int8").engine.infer(small.tiles)
        return float(np.square(outputs["features"] - small.outputs["features"]).mean())

    assert error(settled) < 0.9 * error(int8)


def _graph(content):
    return onnx.load_from_string(content).graph
