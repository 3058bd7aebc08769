"""int8: the rules that every engine needs, each of them broken once, and the same answers within the tolerance."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import BundleError, UsageError
from melanoma_infer.verification.differences import beyond, differences
from mminfer_export.backbone import Backbone
from mminfer_export.check_quantized import check_quantized
from mminfer_export.quantize import best_scale, calibrate, int8_weight, most_harmful, quantize

CONVOLUTIONS, ADDS = 52, 16


@pytest.fixture(scope="module")
def content(calibration):
    return quantize(calibration)


@pytest.fixture(scope="module")
def worst(small, calibration):
    return most_harmful(calibration, small.set_on[:3])


@pytest.fixture
def model(content):
    return onnx.load_from_string(content)


def named(model, **wanted):
    """The first node whose fields are as wanted."""
    return next(node for node in model.graph.node if all(getattr(node, k) == v for k, v in wanted.items()))


def stored(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def insert_pair(model, value, kind=np.int8):
    """A QuantizeLinear and DequantizeLinear after a value, taken by all that took it."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "s"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, kind), "z"))
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == value:
                node.input[place] = "pair_back"
    model.graph.node.append(helper.make_node("QuantizeLinear", [value, "s", "z"], ["pair"], name="pair_q"))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["pair", "s", "z"], ["pair_back"], name="pair_dq"))


def test_the_backbone_is_found_by_structure(small):
    backbone = Backbone(onnx.load_from_string(small.bundle.graphs["fp32"]).graph)
    assert len(backbone.convolutions) == CONVOLUTIONS
    assert len(backbone.skips()) == ADDS
    assert all(node.input[1].startswith("backbone.layer") for node in backbone.convolutions)


def test_every_convolution_of_the_backbone_but_the_first_is_int8(model):
    back = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    int8 = [node.input[1] for node in model.graph.node if node.op_type == "Conv" and node.input[0] in back]
    assert len(int8) == CONVOLUTIONS
    assert all(name.startswith("backbone.layer") for name in int8)
    adds = [sum(name in back for name in node.input) for node in model.graph.node if node.op_type == "Add"]
    assert adds.count(1) == ADDS
    assert 2 not in adds
    check_quantized(model)


def test_the_halves_of_w1_are_tensors_of_their_own_and_float(model):
    shapes = {t.name: (t.data_type, list(t.dims)) for t in model.graph.initializer}
    assert shapes["w1_image"][0] == shapes["w1_depth"][0] == TensorProto.FLOAT
    assert shapes["w1_image"][1][:2] == [128, 256]
    assert shapes["w1_depth"][1] == [128]


def test_engines_accept_it_and_it_is_a_third_of_the_size_without_the_depth_module(small, content, model):
    check_graph(content, small.bundle.card)
    depth = [t for t in model.graph.initializer if t.name.startswith("depth.")]
    in_float = sum(len(t.raw_data) for t in depth)
    assert in_float == 4 * sum(int(np.prod(t.dims)) for t in depth) > 800_000
    assert len(content) - in_float < 0.45 * (len(small.bundle.graphs["fp32"]) - in_float)


def test_the_same_calibration_gives_the_same_bytes(small, calibration, content):
    assert quantize(calibration) == content
    assert quantize(calibrate(small.bundle.graphs["fp32"], small.set_on[:12])) == content


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_answers_are_within_the_tolerance(small, calibration, worst, engine):
    """With the worst layers in float: at width 8 there is little to average rounding away."""
    graph = quantize(calibration, worst[:28])
    bundle = replace(small.bundle, graphs={**small.bundle.graphs, "int8": graph})
    outputs = load_engine(bundle, engine, precision="int8").engine.infer(small.tiles)
    excess = beyond(differences(bundle, small.outputs, outputs), bundle.card.tolerance_of("int8"))
    assert excess[0].ratio <= 1, str(excess[0])
    if engine == "onnxruntime":  # OpenVINO rounds the depth module's input, too
        np.testing.assert_allclose(outputs["depth_mm"], small.outputs["depth_mm"], rtol=0, atol=1e-4)


def test_layers_in_float_lessen_the_error(small, calibration, worst):
    """Of the features: in a probability, errors of two layers may cancel, and one less makes it worse."""
    errors = []
    for count in (0, 16, 48):
        graph = quantize(calibration, worst[:count])
        bundle = replace(small.bundle, graphs={**small.bundle.graphs, "int8": graph})
        outputs = load_engine(bundle, "openvino", precision="int8").engine.infer(small.tiles)
        errors.append(np.square(outputs["features"] - small.outputs["features"]).mean())
    assert errors[0] > errors[1] > errors[2] > 0


def test_nothing_in_int8_is_the_float_graph(small, calibration):
    graph = quantize(calibration, [layer.name for layer in calibration.layers])
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load_from_string(graph).graph.node}
    bundle = replace(small.bundle, graphs={**small.bundle.graphs, "int8": graph})
    outputs = load_engine(bundle, "openvino", precision="int8").engine.infer(small.tiles)
    np.testing.assert_allclose(outputs["probabilities"], small.outputs["probabilities"], rtol=0, atol=1e-4)


def test_the_bias_takes_up_what_int8_adds_to_a_channels_mean(calibration, model):
    layer = calibration.layers[5]
    before = numpy_helper.to_array(stored(calibration.model, layer.bias))
    after = numpy_helper.to_array(stored(model, f"{layer.bias}_corrected"))
    np.testing.assert_allclose(after, before - layer.shift, rtol=0, atol=1e-7)
    assert np.abs(layer.shift).max() > 0


def test_weights_lose_at_most_half_a_step():
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32) * np.arange(5)[:, None, None, None]
    values, scales = int8_weight(weight)
    back = values * scales[:, None, None, None]
    assert (np.abs(back - weight) <= scales[:, None, None, None] / 2 + 1e-7).all()
    assert values.dtype == np.int8
    assert np.abs(values[1:]).reshape(4, -1).max(1).tolist() == [127] * 4
    assert (scales > 0).all()


@pytest.mark.parametrize("outlier", [1.0, 5.0])
def test_ranges_have_the_least_squared_error(outlier):
    values = np.append(np.random.default_rng(0).uniform(0, 1, 10_000), outlier)

    def error(scale):
        return np.square(np.clip(np.rint(values / scale), -128, 127) * scale - values).mean()

    scale = best_scale(values)
    assert error(scale) <= error(outlier / 127)
    assert 0.59 * outlier / 127 <= scale <= outlier / 127 * (1 + 1e-9)
    assert best_scale(np.zeros(3)) == 1.0


def test_weights_in_constant_nodes_are_found(small, calibration):
    model = onnx.load_from_string(small.bundle.graphs["fp32"])
    layer = calibration.layers[0]
    for name in (layer.weight, layer.bias):
        tensor = stored(model, name)
        model.graph.node.insert(0, helper.make_node("Constant", [], [name], value=tensor))
        model.graph.initializer.remove(tensor)
    again = calibrate(model.SerializeToString(), small.set_on[:12])
    assert quantize(again) == quantize(calibration)


def test_no_tile_is_no_calibration(small):
    with pytest.raises(UsageError, match="no tile"):
        calibrate(small.bundle.graphs["fp32"], small.set_on[:0])


def uint8_zero_point(model):
    """What NNCF writes after a ReLU, and TensorRT-RTX reads as int8."""
    stored(model, "zero").CopyFrom(numpy_helper.from_array(np.array(0, np.uint8), "zero"))


def zero_point_of_one(model):
    stored(model, "zero").CopyFrom(numpy_helper.from_array(np.array(1, np.int8), "zero"))


def no_zero_point(model):
    del named(model, op_type="QuantizeLinear").input[2:]


def scale_of_zero(model):
    name = named(model, op_type="QuantizeLinear").input[1]
    stored(model, name).CopyFrom(numpy_helper.from_array(np.float32(0), name))


def one_scale_for_a_weight(model):
    node = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.attribute)
    stored(model, node.input[1]).CopyFrom(numpy_helper.from_array(np.float32(0.1), node.input[1]))


def int32_bias(model):
    node = next(n for n in model.graph.node if n.op_type == "Conv" and n.input[1].endswith("_back"))
    for name, values in (("b32", np.zeros(4, np.int32)), ("bs", np.ones(4, np.float32)), ("bz", np.zeros(4, np.int32))):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["b32", "bs", "bz"], ["b"], name="bias_dq", axis=0))
    node.input[2] = "b"


def both_inputs_of_an_add(model):
    add = next(n for n in model.graph.node if n.op_type == "Add" and any(i.endswith("_back") for i in n.input))
    insert_pair(model, next(i for i in add.input if not i.endswith("_back")))


def before_the_first_convolution(model):
    insert_pair(model, named(model, op_type="Conv").input[0])


def after_the_last_activation(model):
    insert_pair(model, Backbone(model.graph).last_activation.output[0])


def in_the_depth_module(model):
    node = next(n for n in model.graph.node if len(n.input) > 1 and n.input[1] == "depth.conv2.weight")
    insert_pair(model, node.input[0])


def in_the_head(model):
    insert_pair(model, next(n for n in model.graph.node if n.op_type == "Gemm" and "w2" in n.input).input[0])


def an_input_without_its_weight(model):
    node = next(n for n in model.graph.node if n.op_type == "Conv" and n.input[1].endswith("_back"))
    name = node.input[1]
    values = numpy_helper.to_array(stored(model, name.replace("_back", "_int8"))).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "plain"))
    node.input[1] = "plain"


BROKEN = {
    uint8_zero_point: "uint8",
    zero_point_of_one: "value 1",
    no_zero_point: "no stored zero point",
    scale_of_zero: "scale above 0",
    one_scale_for_a_weight: "each output channel",
    int32_bias: "float bias|biases float",
    both_inputs_of_an_add: "skip, and nothing else",
    before_the_first_convolution: "before the first convolution|outside the backbone",
    after_the_last_activation: "after the backbone's last activation|outside the backbone",
    in_the_depth_module: "outside the backbone",
    in_the_head: "outside the backbone",
    an_input_without_its_weight: "int8 input and weight",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda each: each.__name__)
def test_the_check_finds_each_broken_rule_and_names_the_node(model, breaks):
    check_quantized(model)
    breaks(model)
    with pytest.raises(BundleError, match=BROKEN[breaks]) as raised:
        check_quantized(model)
    named_nodes = [node.name for node in model.graph.node if repr(node.name) in str(raised.value)]
    assert named_nodes, raised.value


@pytest.mark.parametrize("opset", [13, pytest.param(17, marks=pytest.mark.slow), 23])
def test_a_graph_of_any_opset_is_quantised(opset):
    """ReduceMean, Squeeze and others changed between these; the file may only hold operators of its own opset."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 2)}
    weights = {name: rng.normal(size=shape).astype(np.float32) * 0.2 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Cast", ["tiles"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["nchw", "white"], ["unit"]),
        helper.make_node("Conv", ["unit", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(v, k) for k, v in {**weights, "white": np.float32([255])}.items()],
    )  # fmt: skip
    exact = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    tiles = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    made = quantize(calibrate(exact.SerializeToString(), tiles))
    assert [each.version for each in onnx.load_from_string(made).opset_import] == [opset]
    one, two = (run_in_onnxruntime(each, tiles) for each in (exact.SerializeToString(), made))
    assert 0 < np.abs(one - two).max() < 5e-3


def run_in_onnxruntime(content, tiles):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"tiles": tiles})[0]
