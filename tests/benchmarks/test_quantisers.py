"""A peer's uint8 graph keeps its meaning after conversion to int8, and a row names the rule that a graph breaks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array
from onnx.reference import ReferenceEvaluator

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import BundleError

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
SCALE = 0.02


@pytest.fixture(scope="module")
def quantisers():
    sys.path.insert(0, str(PEERS))
    try:
        import quantisers
    finally:
        sys.path.remove(str(PEERS))
    return quantisers


def through(zero):
    """A graph whose y is x (1000,) through QuantizeLinear and DequantizeLinear."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["steps"]),
        helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000]) for name in "xy")
    stored = [from_array(np.float32(SCALE), "scale"), from_array(zero, "zero")]
    graph = helper.make_graph(nodes, "through", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


def values_of(model, x):
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


@pytest.mark.parametrize(("zero", "step"), [(0, SCALE * 255 / 127), (128, SCALE * 128 / 127)])
def test_int8_gives_the_values_of_uint8_within_half_a_step_of_each(quantisers, zero, step):
    before = through(np.uint8(zero))
    after = onnx.load_from_string(quantisers.int8_throughout(before.SerializeToString()))
    onnx.checker.check_model(after, full_check=True)
    x = np.linspace(-zero * SCALE, (255 - zero) * SCALE, 1000, dtype=np.float32)
    assert np.abs(values_of(after, x) - x).max() == pytest.approx(step / 2, rel=0.01)
    assert np.abs(values_of(after, x) - values_of(before, x)).max() <= (SCALE + step) / 2 * 1.001


def test_every_zero_point_is_int8_and_0(quantisers):
    graph = onnx.load_from_string(quantisers.int8_throughout(through(np.uint8(3)).SerializeToString())).graph
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    zeros = [stored[node.input[2]] for node in graph.node]
    assert [(zero.dtype, int(zero)) for zero in zeros] == [(np.dtype("int8"), 0)] * 2


def test_a_graph_that_is_int8_already_does_not_change(quantisers):
    before = through(np.int8(0))
    after = onnx.load_from_string(quantisers.int8_throughout(before.SerializeToString()))
    assert after.graph == before.graph


def test_a_stored_uint8_tensor_is_refused(quantisers):
    model = through(np.uint8(0))
    model.graph.initializer.append(from_array(np.zeros(1000, np.uint8), "steps"))
    del model.graph.node[0]
    with pytest.raises(ValueError, match="'steps' is stored as uint8"):
        quantisers.int8_throughout(model.SerializeToString())


def test_all_tools_quantise_the_backbone_s_convolutions_and_residual_sums(quantisers):
    model = quantisers.prepared(open_bundle("demo").graphs["fp32"])
    kinds = {node.name: node.op_type for node in model.graph.node}
    names = quantisers.quantised_nodes(model)
    assert [kinds[name] for name in names] == ["Conv"] * 52 + ["Add"] * 16


def test_a_row_names_the_broken_rule(quantisers):
    def broken(reason):
        raise BundleError(reason)

    assert quantisers.kept(lambda: None) == "yes"
    assert quantisers.kept(broken, "a zero point is uint8") == "no: a zero point is uint8"


def test_a_graph_that_openvino_does_not_run_has_no_figures(quantisers):
    bundle = open_bundle("demo")
    engine = quantisers.openvino_of(bundle, b"no graph")
    tiles = bundle.golden.tiles
    assert engine is None
    assert np.isnan(quantisers.tiles_per_s([engine], tiles)).all()
    assert np.isnan(list(quantisers.figures(bundle, engine, tiles, bundle.golden.outputs).values())).all()
