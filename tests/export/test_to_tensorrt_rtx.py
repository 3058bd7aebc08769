"""Engines built ahead of time: what they are built from, what is refused, and what stands beside them.

TensorRT-RTX builds without a GPU, so these are its real parser and builder. No engine runs here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from bundles_for_tests import colour_rule_graph, make_bundle
from onnx import TensorProto, helper, numpy_helper

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.bundle.half import PRODUCTS, to_half
from melanoma_infer.engines import device as device_module
from melanoma_infer.engines import tensorrt_build, tensorrt_types
from melanoma_infer.engines.engine_file import manifest_path, read_engine
from melanoma_infer.engines.slots import BUCKETS
from melanoma_infer.engines.tensorrt_api import Heard, Message, import_api
from melanoma_infer.engines.tensorrt_build import as_built, build, origin_of
from melanoma_infer.engines.tensorrt_types import check_types
from melanoma_infer.errors import (
    BundleError,
    EngineUnavailableError,
    MemoryExhaustedError,
    OutputError,
    UsageError,
)
from melanoma_infer.tolerances import Precision
from mminfer_export import to_tensorrt
from mminfer_export.to_tensorrt_rtx import build_engine

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install 'mminfer[tensorrt-rtx]'")
PORTABLE = ("sm86", "sm89", "sm120")
SIDE = 64


@pytest.fixture(scope="module")
def api():
    return import_api("tensorrt-rtx")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return open_bundle(make_bundle(tmp_path_factory.mktemp("bundles") / "colours.mminfer"))


@pytest.fixture(scope="module")
def demo() -> Bundle:
    """The demo bundle with an fp16 graph."""
    opened = open_bundle("demo")
    return replace(opened, graphs={**opened.graphs, "fp16": to_half(opened.graphs["fp32"])})


def quantised_graph(*, activation: type = np.int8, weight: type = np.int8, zero_point: bool = True) -> onnx.ModelProto:
    """A convolution on quantised tiles, with zero points of these types; without one, ONNX says uint8."""
    random = np.random.default_rng(0)
    stored = {
        "scale": np.float32(0.02), "zero": activation(0), "w_scale": np.full(8, 0.01, np.float32),
        "w_zero": np.zeros(8, weight), "w": random.integers(0, 100, (8, 4, 3, 3)).astype(weight),
        "first": random.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "last": random.normal(size=(8, 2)).astype(np.float32),
    }  # fmt: skip
    parameters = ["scale", "zero"] if zero_point else ["scale"]
    nodes = [
        helper.make_node("Cast", ["tiles"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "first"], ["before"], pads=[1] * 4),
        helper.make_node("Relu", ["before"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", *parameters], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", *parameters], ["exact"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weight"], axis=0),
        helper.make_node("Conv", ["exact", "weight"], ["maps"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "last"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "quantised",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def built(api, bundle: Bundle, graph: onnx.ModelProto, *, precision: Precision = "int8"):
    given = replace(bundle, graphs={precision: graph.SerializeToString()})
    return build(api, given.graphs[precision], origin_of(api, given, precision, PORTABLE)).file


# What is written.


def test_the_manifest_says_what_the_engine_is(api, bundle, tmp_path):
    path, manifest = build_engine(bundle, "fp32", ["sm120", "SM_86", "sm89"], tmp_path / "out" / "a.engine")
    assert json.loads(manifest_path(path).read_bytes()) == json.loads(manifest.to_json())
    content = path.read_bytes()
    assert manifest.model_dump() == {
        "format": 1,
        "origin": {
            "runtime": "tensorrt-rtx",
            "runtime_version": trt.__version__,
            "onnx_sha256": hashlib.sha256(bundle.graphs["fp32"]).hexdigest(),
            "precision": "fp32",
            "targets": ("sm86", "sm89", "sm120"),
            "gpu": None,
            "flags": ("no-tf32", "strict-nans", "distributive-independence", "require-user-allocation"),
        },
        "engine_sha256": hashlib.sha256(content).hexdigest(),
        "engine_bytes": len(content),
        "buckets": BUCKETS,
        "inputs": ({"name": "tiles", "dtype": "uint8", "shape": (-1, 64, 64, 3)},),
        "outputs": ({"name": "probabilities", "dtype": "float32", "shape": (-1, 2)},),
    }
    assert read_engine(path).manifest == manifest


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_int8_leaves_in_float_is_fp16_and_nothing_is_tf32(api, demo, precision):
    """In float32 that part takes longer than all of an fp16 graph; CPUs run it so, and the bundle keeps it."""
    origin = origin_of(api, demo, precision, ["sm86"])
    assert origin.onnx_sha256 == hashlib.sha256(demo.graphs[precision]).hexdigest()
    built_from = as_built(demo.graphs[precision], origin)
    assert (built_from == demo.graphs[precision]) == (precision != "int8")
    types = tensorrt_types.types_of(trt, onnx.load_model_from_string(built_from))
    expected = trt.DataType.FLOAT if precision == "fp32" else trt.DataType.HALF
    products = [node for node in onnx.load_model_from_string(built_from).graph.node if node.op_type in PRODUCTS]
    assert len(products) > 58
    assert {types[node.output[0]] for node in products} == {expected}
    asked = ConfigFlags()
    tensorrt_build._config(api, SimpleNamespace(create_builder_config=lambda: asked), origin, fixed_input(), (1,))
    assert asked.flags[trt.BuilderFlag.TF32] is False


class ConfigFlags:
    """The flags of a builder's settings."""

    def __init__(self):
        self.flags = {}

    def set_flag(self, flag):
        self.flags[flag] = True

    def clear_flag(self, flag):
        self.flags[flag] = False

    def set_compute_capability(self, capability, index):
        return True


def fixed_input():
    return helper.make_tensor_value_info("tiles", TensorProto.UINT8, [1, SIDE, SIDE, 3])


def test_the_default_name_is_bundle_precision_and_targets(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _ = build_engine(bundle, "fp32")
    assert path == Path("colours.fp32.sm86-sm89-sm120.engine")
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]


def test_an_engine_is_replaced_and_another_file_is_not(bundle, tmp_path):
    out = tmp_path / "a.engine"
    build_engine(bundle, "fp32", ["sm86"], out)
    build_engine(bundle, "fp32", ["sm89"], out)
    assert read_engine(out).manifest.origin.targets == ("sm89",)
    slide = tmp_path / "slide.svs"
    slide.write_bytes(b"a slide")
    with pytest.raises(OutputError, match="not an engine"):
        build_engine(bundle, "fp32", ["sm86"], slide)
    assert slide.read_bytes() == b"a slide"


def test_nothing_is_left_where_it_cannot_be_written(bundle, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="Choose another --out"):
        build_engine(bundle, "fp32", ["sm86"], tmp_path / "file" / "a.engine")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_fixed_batch_is_the_only_bucket(api, bundle):
    graph = colour_rule_graph(SIDE)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    assert built(api, bundle, graph).manifest.buckets == (2,)


# The demo network, in every precision that there is.


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_demo_s_engine_builds_for_every_target(demo, tmp_path, precision):
    """Without a GPU, in seconds; the README states what it was. sm75 has no float32 products."""
    targets = ["sm75", "sm80", "sm86", "sm89", "sm120"]
    _, manifest = build_engine(demo, precision, targets, tmp_path / "a.engine")
    assert manifest.origin.targets == tuple(targets)
    assert ("fp16-around-int8" in manifest.origin.flags) == (precision == "int8")
    assert [spec.name for spec in manifest.outputs] == ["probabilities", "depth_mm", "attention", "cam", "features"]
    assert {spec.dtype for spec in manifest.outputs} == {"float32"}


def test_sm75_has_no_fp32_matrix_products_and_says_what_to_do(demo, tmp_path):
    with pytest.raises(EngineUnavailableError, match=r"FP32 GEMM.*--precision fp16 or int8, or remove sm75") as caught:
        build_engine(demo, "fp32", ["sm75", "sm86"], tmp_path / "a.engine")
    assert caught.value.exit_code == 21
    assert list(tmp_path.iterdir()) == []


def test_stripping_weights_builds_or_says_that_it_needs_a_gpu(demo, tmp_path):
    """TensorRT-RTX 1.7.1 did not, without one, for any targets; a later version may."""
    said = ""
    try:
        build_engine(demo, "fp16", ["sm86"], tmp_path / "a.engine", strip_weights=True)
    except EngineUnavailableError as error:
        said = str(error)
    stripped = (tmp_path / "a.engine").is_file()
    assert stripped != ("omit --strip-weights" in said)


# Types.


def test_int8_zero_points_build(api, bundle):
    assert built(api, bundle, quantised_graph()).manifest.engine_bytes > 0


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"activation": np.uint8}, "'quantised' is uint8 in the graph, but int8 in the parsed network"),
        ({"zero_point": False}, "'quantised' is uint8 in the graph, but int8 in the parsed network"),
    ],
)
def test_uint8_zero_points_are_refused(api, bundle, changed, named):
    """TensorRT-RTX reads them as int8 with a mere warning, and builds: the engine would be wrong."""
    with pytest.raises(BundleError, match=named) as caught:
        built(api, bundle, quantised_graph(**changed))
    assert caught.value.exit_code == 20
    assert "--precision int8" in str(caught.value)


def test_uint8_weights_are_refused_by_the_parser(api, bundle):
    with pytest.raises(EngineUnavailableError, match=r"DequantizeLinear .*UINT8"):
        built(api, bundle, quantised_graph(weight=np.uint8))


def test_the_warning_alone_is_an_error_too(api, bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_build, "check_types", lambda *_: None)
    with pytest.raises(BundleError, match=r"replaced a type or value.*UINT8"):
        built(api, bundle, quantised_graph(activation=np.uint8))


def test_tensorrt_rtx_itself_still_builds_the_wrong_engine(api, bundle, monkeypatch):
    """Why the two tests above are there. When this fails, the library refuses by itself."""
    monkeypatch.setattr(tensorrt_build, "check_types", lambda *_: None)
    monkeypatch.setattr(tensorrt_build, "_refuse_defaulting", lambda *_: None)
    assert built(api, bundle, quantised_graph(activation=np.uint8)).manifest.engine_bytes > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_named_tensor_of_the_demo_was_compared(api, demo, precision):
    """Types are compared by name: most of the graph's values must be found under theirs."""
    graph = as_built(demo.graphs[precision], origin_of(api, demo, precision, ["sm86"]))
    model = onnx.load_model_from_string(graph)
    network = parsed(api, graph)
    check_types(trt, network, model)
    found = {name for name, _ in tensorrt_types.tensors_of(trt, network)}
    values = [node.output[0] for node in model.graph.node]
    missing = [name for name in values if name not in found]
    assert len(missing) <= 0.05 * len(values), missing


def parsed(api, content: bytes):
    builder = trt.Builder(api.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, api.logger).parse(content)
    return network


@pytest.mark.parametrize("name", ["cast", "logits", "weight", "probabilities", "tiles"])
def test_a_type_that_differs_anywhere_is_refused(api, monkeypatch, name):
    """The walk can fail: the same network against a graph that says another type for one value."""
    model = colour_rule_graph(SIDE)
    network = parsed(api, model.SerializeToString())
    check_types(trt, network, model)
    wrong = {**tensorrt_types.types_of(trt, model), name: trt.DataType.BF16}
    monkeypatch.setattr(tensorrt_types, "types_of", lambda *_: wrong)
    with pytest.raises(BundleError, match=f"'{name}' is bf16 in the graph"):
        check_types(trt, network, model)


def test_a_matrix_product_that_cannot_be_found_is_refused(api):
    model = colour_rule_graph(SIDE)
    network = parsed(api, model.SerializeToString())
    next(node for node in model.graph.node if node.op_type == "Gemm").output[0] = "elsewhere"
    with pytest.raises(BundleError, match="'elsewhere' of a Gemm"):
        check_types(trt, network, model)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("UINT8 zero_point only on DLA (version >= 3.16). Defaulting to INT8 instead. To import as UINT8, …", True),
        ("scale_type is not set. Defaulting to FP8.", True),
        ("One or more weights outside the range of FLOAT was clamped", True),
        ("Value 70000 is out of range. Clamping to: 65504", True),
        ("TensorRT does not natively support INT64. Attempting to cast down to INT32.", True),
        ("Weights [conv1] had the following issues when converted to FP16: subnormal values", True),
        ("Casting BatchNormalization parameters to the same type as input for StronglyTyped networks.", True),
        ("Using default stream in enqueueV3() may lead to performance issues. Use non-default stream instead.", False),
        ("The layer does not have a profile, default profile is used.", False),
        ("default input shape profile is used.", False),
        ("use ctx created on default device for CASK because of cuCtxGetDevice failure", False),
        ("Found BatchNormalization node with non-conforming initializer types. Casting parameters to FP32", False),
        ("Row major linear UINT8 format (kLINEAR) is slow for this layer", False),
        ("The logger passed in differs from one already registered for an existing builder", False),
        ("Profiling is slow.", False),
    ],
)
def test_which_warnings_are_errors(api, text, refused):
    with api.listening() as heard:
        api.logger.log(trt.ILogger.WARNING, text)
        api.logger.log(trt.ILogger.VERBOSE, "Defaulting to what was asked for.")
    if refused:
        with pytest.raises(BundleError):
            tensorrt_build._refuse_defaulting(api, heard)
    else:
        tensorrt_build._refuse_defaulting(api, heard)


# What the library says.


def test_an_operator_that_is_not_read_says_which_and_what_to_do(api, bundle):
    graph = colour_rule_graph(SIDE)
    node = next(node for node in graph.graph.node if node.op_type == "Transpose")
    graph.graph.node.remove(node)
    graph.graph.node.insert(1, helper.make_node("Det", ["cast"], ["nchw"], name="odd_one"))
    with pytest.raises(EngineUnavailableError, match=r"cannot parse this graph.*Det.*--engine openvino"):
        built(api, bundle, graph, precision="fp32")
    with pytest.raises(BundleError, match=r"types cannot be inferred.*Export the model again"):
        built(api, bundle, graph, precision="int8")  # the determinant of an oblong matrix is none


def test_a_precision_that_is_not_there_says_how_to_make_it(bundle, tmp_path):
    with pytest.raises(EngineUnavailableError, match=r"no int8 graph.*--to onnx"):
        build_engine(bundle, "int8", out=tmp_path / "a.engine")


@pytest.mark.parametrize("targets", [["sm90"], ["sm86", "rtx"], [], [""]])
def test_a_target_that_is_none_names_those_that_are(bundle, tmp_path, targets):
    with pytest.raises(UsageError, match=r"sm75, sm80, sm86, sm89, sm120.*--to tensorrt"):
        build_engine(bundle, "fp32", targets, tmp_path / "a.engine")


def test_memory_that_runs_out_while_building_is_exit_175(api, bundle, monkeypatch):
    builder = SimpleNamespace(build_serialized_network=lambda network, config: None)
    heard = Heard([Message("Error Code 2: OutOfMemory (no 4 bytes)", True)])
    with pytest.raises(MemoryExhaustedError):
        tensorrt_build._plan(api, builder, None, None, origin_of(api, bundle, "fp32", ["sm86"]), heard)


# The command.


def run_mminfer(monkeypatch, *argv: object) -> None:
    from melanoma_infer.cli.app import main

    monkeypatch.setattr("sys.argv", ["mminfer", *map(str, argv)])
    with pytest.raises(SystemExit) as ended:
        main()
    if ended.value.code:
        raise RuntimeError(ended.value.code)


def test_an_int8_engine_of_tensorrt_rtx_claims_no_int8_convolutions(monkeypatch, tmp_path, capsys):
    """It builds the graph; that its convolutions run in int8 would show in its layer information on a GPU."""
    for precision, said in (("int8", True), ("fp32", False)):
        run_mminfer(monkeypatch, "export", "demo", "--to", "tensorrt-rtx", "--precision", precision, "--target", "sm86",
                    "--out", tmp_path / f"{precision}.engine")  # fmt: skip
        assert ("does not show that its convolutions run in int8" in capsys.readouterr().err) == said


def test_the_command_builds_an_engine_and_says_so(monkeypatch, tmp_path, capsys):
    sealed = make_bundle(tmp_path / "colours.mminfer")
    monkeypatch.chdir(tmp_path)
    run_mminfer(monkeypatch, "export", sealed, "--to", "tensorrt-rtx", "--precision", "fp32", "--target", "sm89,sm86")
    said = capsys.readouterr()
    assert said.out == "colours.fp32.sm86-sm89.engine\n"
    assert "not run" in said.err
    out = tmp_path / "b.engine"
    run_mminfer(monkeypatch, "export", sealed, "--to", "tensorrt-rtx", "--precision", "fp32", "--out", out, "--json")
    result = json.loads(capsys.readouterr().out)
    assert (result["out"], result["origin"]["targets"]) == (str(out), list(PORTABLE))
    assert result["engine_bytes"] == out.stat().st_size


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--to", "tensorrt-rtx", "--precision", "fp32", "--target", "sm90"], 2, "sm75, sm80"),
        (["--to", "tensorrt-rtx", "--precision", "fp32", "--device", "cuda:1"], 2, "--to tensorrt"),
        (["--to", "tensorrt", "--precision", "fp32", "--target", "sm89"], 2, "--to tensorrt-rtx"),
        (["--to", "tensorrt", "--precision", "fp32"], 21, "no NVIDIA driver"),
        (["--to", "tensorrt-rtx", "--precision", "fp32", "--plugins"], 2, "only for --to tensorrt, not for"),
        (["--to", "tensorrt", "--precision", "fp32", "--plugins", "--strip-weights"], 2, "not both"),
        (["--to", "onnx", "--precision", "fp16"], 2, "--out"),
        (["--to", "onnx", "--precision", "fp16", "--strip-weights"], 2, "--to tensorrt-rtx or tensorrt"),
    ],
)
def test_the_command_refuses_what_does_not_fit(monkeypatch, capsys, argv, code, words):
    monkeypatch.setattr(device_module, "DRIVER_FILES", ())
    with pytest.raises(RuntimeError, match=f"^{code}$"):
        run_mminfer(monkeypatch, "export", "demo", *argv)
    assert words in capsys.readouterr().err


# Full TensorRT, which needs a GPU.


def test_tensorrt_without_a_driver_says_exactly_that(bundle, monkeypatch, tmp_path):
    monkeypatch.setattr(device_module, "DRIVER_FILES", ())
    with pytest.raises(EngineUnavailableError, match=r"this machine has no NVIDIA driver.*--to tensorrt-rtx") as caught:
        to_tensorrt.build_engine(bundle, "fp32", tmp_path / "a.engine")
    assert caught.value.exit_code == 21


def test_tensorrt_that_is_not_installed_says_exactly_that(bundle, monkeypatch, tmp_path):
    import sys

    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailableError, match=r"TensorRT does not load here.*pip install 'mminfer\[tensorrt\]'"):
        to_tensorrt.build_engine(bundle, "fp32", tmp_path / "a.engine")


def test_tensorrt_keeps_its_timings_beside_the_engine(bundle, monkeypatch, tmp_path):
    """On a drawn GPU; the calls are bound to the bindings' signatures."""
    from fake_cuda_for_tests import FakeCuda
    from tensorrt_for_tests import Behaviour, fake_library

    from melanoma_infer.engines.tensorrt_api import Api, new_logger

    gpu = FakeCuda(gpus=2, target=(9, 0), model=b"NVIDIA H200")
    behaviour = Behaviour(gpu)
    library = fake_library(behaviour, rtx=False, outputs={"probabilities": (2,)}, tile_px=SIDE)
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setattr(to_tensorrt, "import_api", lambda name: Api(name, library, new_logger(library)))
    monkeypatch.setattr(to_tensorrt, "import_cuda", lambda: gpu)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        path, manifest = to_tensorrt.build_engine(bundle, "fp32", device="cuda:1")
        gpu.current = 0
    assert behaviour.built_on == [1, 1]
    assert path == Path("colours.fp32.sm90.engine")
    assert (manifest.origin.targets, manifest.origin.gpu) == (("sm90",), "NVIDIA H200")
    assert behaviour.timings == [b"", b"timings"]
    assert behaviour.profiles == len(BUCKETS)
    assert Path("colours.fp32.sm90.engine.timings").read_bytes() == b"timings"


@pytest.mark.parametrize("plugins", [False, True])
def test_tensorrt_parses_the_whole_graph_or_its_front_to_which_the_tail_is_added(demo, monkeypatch, tmp_path, plugins):
    """On a drawn GPU, with a real parser; what is added is tested in test_tensorrt_plugins.py."""
    from fake_cuda_for_tests import FakeCuda
    from tensorrt_for_tests import Behaviour, fake_library

    from melanoma_infer.engines.tensorrt_api import Api, new_logger
    from mminfer_export import tensorrt_plugins

    gpu, added = FakeCuda(target=(8, 9)), []
    library = fake_library(Behaviour(gpu), rtx=False, outputs={"probabilities": (4,)}, tile_px=512)
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setattr(to_tensorrt, "import_api", lambda name: Api(name, library, new_logger(library)))
    monkeypatch.setattr(to_tensorrt, "import_cuda", lambda: gpu)

    def add_tail(trt, network, front, weights, sm):
        names = [network.get_output(index).name for index in range(network.num_outputs)]
        added.append((names, front.x, str(weights["w1_image"].dtype), sm))

    monkeypatch.setattr(tensorrt_plugins, "add_tail", add_tail)
    _, manifest = to_tensorrt.build_engine(demo, "fp16", tmp_path / "a.engine", plugins=plugins)
    assert added == ([(["depth_mm", "relu_48"], "relu_48", "float16", 89)] if plugins else [])
    assert ("plugins" in manifest.origin.flags) == plugins
    assert {spec.name for spec in manifest.outputs} == {"probabilities", *demo.card.outputs}
