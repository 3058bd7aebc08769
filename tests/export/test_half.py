"""fp16: matrix products in half precision, everything delicate in float32, the same answers within the tolerance."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.bundle.half import PRODUCTS, QUANTISERS, check_half, to_half
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import BundleError
from melanoma_infer.verification.differences import beyond, differences
from mminfer_export.quantize import quantize

FLOAT32 = {"Div", "Sub", "ReduceMean", "ReduceMax", "Concat", "Sigmoid", "Softplus", "Softmax", "Mul", "AveragePool"}


@pytest.fixture(scope="module")
def half(small):
    return to_half(small.bundle.graphs["fp32"])


def kinds(content):
    graph = infer_shapes(onnx.load_from_string(content), strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}


def test_matrix_products_are_half_and_what_is_delicate_is_float32(half):
    types = kinds(half)
    for node in onnx.load_from_string(half).graph.node:
        if node.op_type in PRODUCTS:
            assert types[node.output[0]] == TensorProto.FLOAT16, node.name
        if node.op_type in FLOAT32:
            assert types[node.output[0]] == TensorProto.FLOAT, node.name


def test_no_value_is_rounded_between_two_float32_nodes(half):
    """The converters at hand write Cast to half, Cast to float between them."""
    nodes = onnx.load_from_string(half).graph.node
    makers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type == "Cast" and (maker := makers.get(node.input[0])) is not None:
            assert maker.op_type != "Cast", node.name


def test_the_residual_sums_stay_in_half(half):
    """A Cast in the backbone would cost a pass over its largest maps."""
    nodes = onnx.load_from_string(half).graph.node
    takers = [node for node in nodes for name in node.input if name.startswith("relu") and node.op_type == "Cast"]
    assert len(takers) <= 4


def test_the_graph_is_one_that_engines_accept_and_half_the_size(small, half):
    check_graph(half, small.bundle.card)
    assert len(half) < 0.6 * len(small.bundle.graphs["fp32"])
    known = {"", "tiles", *(t.name for t in onnx.load_from_string(half).graph.initializer)}
    for node in onnx.load_from_string(half).graph.node:
        assert known.issuperset(node.input), f"{node.name} is not behind what it takes"
        known.update(node.output)


def test_the_same_graph_gives_the_same_bytes(small, half):
    assert to_half(small.bundle.graphs["fp32"]) == half


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_answers_are_within_the_tolerance(small, half, engine):
    bundle = replace(small.bundle, graphs={**small.bundle.graphs, "fp16": half})
    outputs = load_engine(bundle, engine, precision="fp16").engine.infer(small.tiles)
    assert {values.dtype for values in outputs.values()} == {np.dtype(np.float32)}
    assert np.abs(outputs["probabilities"] - small.outputs["probabilities"]).max() > 0
    excess = beyond(differences(bundle, small.outputs, outputs), bundle.card.tolerance_of("fp16"))
    assert excess[0].ratio <= 1, str(excess[0])


def test_the_demo_can_be_halved():
    demo = open_bundle("demo")
    check_graph(to_half(demo.graphs["fp32"]), demo.card)


def test_a_weight_beyond_fp16_is_refused(small):
    model = onnx.load_from_string(small.bundle.graphs["fp32"])
    weight = next(t for t in model.graph.initializer if t.name == "backbone.layer1.0.conv1.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e7), weight.name))
    with pytest.raises(BundleError, match=r"layer1\.0\.conv1\.weight.*fp16 ends at 65504"):
        to_half(model.SerializeToString())


def test_a_graph_within_a_node_is_refused(small):
    model = onnx.load_from_string(small.bundle.graphs["fp32"])
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], name="branch", then_branch=inner, else_branch=inner))
    with pytest.raises(BundleError, match="'branch'"):
        to_half(model.SerializeToString())


def test_a_float32_product_and_a_half_output_are_found(small, half):
    with pytest.raises(BundleError, match="not in half precision"):
        check_half(onnx.load_from_string(small.bundle.graphs["fp32"]))
    model = onnx.load_from_string(half)
    last = next(node for node in model.graph.node if "probabilities" in node.output)
    last.output[0] = "inner"
    model.graph.node.append(helper.make_node("Cast", ["inner"], ["probabilities"], to=TensorProto.FLOAT16))
    next(v for v in model.graph.output if v.name == "probabilities").type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(BundleError, match="'probabilities' is not float32"):
        check_half(model)


# What is int8 stays int8.


@pytest.fixture(scope="module")
def quantised(calibration):
    return quantize(calibration)


def test_int8_stays_int8_between_values_in_fp16(quantised):
    half = onnx.load_from_string(to_half(quantised))
    types = kinds(half.SerializeToString())
    quantisers = [node for node in half.graph.node if node.op_type in QUANTISERS]
    assert len(quantisers) == sum(node.op_type in QUANTISERS for node in onnx.load_from_string(quantised).graph.node)
    for node in quantisers:
        kind = TensorProto.INT8 if node.op_type == "QuantizeLinear" else TensorProto.FLOAT16
        assert types[node.output[0]] == kind, node.name
    assert not [node.name for node in half.graph.node if node.op_type == "Cast" and "int8" in node.input[0]]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_fp16_around_int8_is_as_near_to_float32_as_int8(small, quantised, engine):
    seen = []
    for graph in (quantised, to_half(quantised)):
        bundle = replace(small.bundle, graphs={**small.bundle.graphs, "int8": graph})
        outputs = load_engine(bundle, engine, precision="int8").engine.infer(small.tiles)
        seen.append(beyond(differences(bundle, small.outputs, outputs), bundle.card.tolerance_of("int8"))[0].ratio)
    assert seen[1] <= 1
    assert seen[1] <= seen[0] + 0.2


def with_scale(content, kind, scale):
    """The graph with another last scale of its first quantiser of a kind, of a weight if it is a DequantizeLinear."""
    model = onnx.load_from_string(content)
    tensors = {t.name: t for t in model.graph.initializer}
    node = next(n for n in model.graph.node if n.op_type == kind and (n.input[0] in tensors) == (kind[0] == "D"))
    scales = numpy_helper.to_array(tensors[node.input[1]]).copy()
    scales.flat[-1] = scale
    tensors[node.input[1]].CopyFrom(numpy_helper.from_array(scales, node.input[1]))
    stored = numpy_helper.to_array(tensors[node.input[0]]) if kind[0] == "D" else np.ones((1, 1, 1, 1))
    return model.SerializeToString(), node, stored * scales.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("scale", [1e-6, 1e-9])
def test_a_weight_whose_scale_fp16_cannot_hold_is_dequantised(quantised, scale):
    """Tiny scales belong to channels that hardly count, which the rounded scale would change by percents."""
    content, node, exact = with_scale(quantised, "DequantizeLinear", scale)
    half = onnx.load_from_string(to_half(content))
    assert node.output[0] not in {name for each in half.graph.node for name in each.output}
    stored = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}
    np.testing.assert_array_equal(stored[f"{node.output[0]}_half"], exact.astype(np.float16))


def test_a_weight_that_would_be_beyond_fp16_is_refused(quantised):
    with pytest.raises(BundleError, match="fp16 ends at 65504"):
        to_half(with_scale(quantised, "DequantizeLinear", 7e4)[0])


def test_a_value_whose_scale_fp16_cannot_hold_is_refused(quantised):
    content, node, _ = with_scale(quantised, "QuantizeLinear", 1e-8)
    with pytest.raises(BundleError, match=rf"{node.name}.*scale that fp16 cannot hold.*--precision fp16"):
        to_half(content)
