"""The exported graph: its structure, and the same numbers from ONNX Runtime and OpenVINO as from PyTorch."""

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch

from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.card import ModelCard, NetworkShape, Outcome, PatientField
from melanoma_infer.model.melanoma_net import MelanomaNet
from mminfer_export.to_onnx import to_onnx

TILE_PX = 256
NAMES = ["probabilities", "depth_mm", "attention", "cam", "features"]
WITH_PATIENT = {
    "classes": ("none", "benign", "spared", "spread"),
    "malignant": ("spared", "spread"),
    "outcome": Outcome(name="spread", classes=("spread",)),
    "patient_fields": (PatientField(name="sex", values=("female", "male")),),
}
WITHOUT_PATIENT = {"classes": ("normal", "tumour"), "malignant": ("tumour",)}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(WITH_PATIENT, id="4 classes"),
        pytest.param(WITHOUT_PATIENT, id="2 classes, no patient", marks=pytest.mark.slow),
    ],
)
def exported(request):
    card = ModelCard(
        name="test",
        tile_px=TILE_PX,
        um_per_px=1.0,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        resize="reduce-bilinear",
        outputs=("depth_mm", "attention", "cam", "features"),
        network=NetworkShape(width=2),
        **request.param,
    )
    torch.manual_seed(1)
    net = MelanomaNet.from_card(card).eval()
    return net, to_onnx(net, TILE_PX)


def dimensions(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_the_interface_is_the_one_every_engine_expects(exported):
    net, content = exported
    graph = onnx.load_from_string(content).graph
    assert [value.name for value in graph.output] == NAMES
    assert {value.name: dimensions(value) for value in (*graph.input, *graph.output)} == {
        "tiles": ["batch", TILE_PX, TILE_PX, 3],
        "probabilities": ["batch", len(net.card.classes)],
        "depth_mm": ["batch"],
        "attention": ["batch", 8, 8],
        "cam": ["batch", 3, 8, 8],
        "features": ["batch", 128],
    }
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert {value.type.tensor_type.elem_type for value in graph.output} == {onnx.TensorProto.FLOAT}
    check_graph(content, net.card)


def test_the_graph_has_only_plain_operators_and_begins_with_cast_then_transpose(exported):
    model = onnx.load_from_string(exported[1])
    assert [node.op_type for node in model.graph.node[:2]] == ["Cast", "Transpose"]
    assert {node.domain for node in model.graph.node} == {""}
    assert [(opset.domain, 17 <= opset.version <= 20) for opset in model.opset_import] == [("", True)]
    assert not model.functions


def test_pooling_is_plain_average_pooling(exported):
    nodes = [node for node in onnx.load_from_string(exported[1]).graph.node if node.op_type == "AveragePool"]
    sizes = [list(a.ints) for node in nodes for a in node.attribute if a.name == "kernel_shape"]
    assert sizes == [[4, 4], [2, 2]]


def test_all_weights_are_finite_float32_inside_the_file(exported):
    for tensor in onnx.load_from_string(exported[1]).graph.initializer:
        assert not tensor.external_data
        values = onnx.numpy_helper.to_array(tensor)
        assert values.dtype in (np.float32, np.int64)
        assert np.isfinite(values).all()


def test_nothing_in_the_file_tells_where_it_was_made(exported):
    content = exported[1]
    for trace in (b"site-packages", b".py", b"stack_trace", b'File "', str(__file__).encode()[:10]):
        assert trace not in content


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_agree_with_pytorch(exported, runtime, batch):
    """Sources of the tolerances: |Δp| 1e-5 is a tenth of fp32's; maps and features carry float32's rounding through the
    whole network, which depends on how this CPU's convolutions sum (1.8e-5 seen on one with AVX-512).
    """
    net, content = exported
    tiles = np.random.default_rng(batch).integers(0, 256, (batch, TILE_PX, TILE_PX, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = {name: value.numpy() for name, value in net(torch.from_numpy(tiles))._asdict().items()}
    actual = run(runtime, content, tiles)
    assert {name: value.shape for name, value in actual.items()} == {n: v.shape for n, v in expected.items()}
    np.testing.assert_allclose(actual["probabilities"], expected["probabilities"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual["depth_mm"], expected["depth_mm"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual["attention"], expected["attention"], rtol=0, atol=1e-4)
    for name in ("features", "cam"):
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(actual[name] / scale, expected[name] / scale, rtol=0, atol=1e-4)


def run(runtime, content, tiles):
    if runtime == "onnxruntime":
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return dict(zip(NAMES, session.run(NAMES, {"tiles": tiles}), strict=True))
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({"tiles": tiles})
    return {name: np.array(answer[name]) for name in NAMES}


class TransposesFirst(torch.nn.Module):
    """A network that transposes uint8, and reads the batch size."""

    def forward(self, tiles):
        return tiles.permute(0, 3, 1, 2).float().reshape(tiles.shape[0], 3, -1).mean(2)


def test_uint8_is_cast_before_anything_else():
    """TensorRT-RTX cannot transpose uint8."""
    content = to_onnx(TransposesFirst(), 8, ["colour"])
    nodes = onnx.load_from_string(content).graph.node
    assert [node.op_type for node in nodes if "tiles" in node.input] == [nodes[0].op_type] == ["Cast"]
    tiles = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    (colour,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"tiles": tiles})
    np.testing.assert_allclose(colour, tiles.mean((1, 2)), rtol=1e-6)
