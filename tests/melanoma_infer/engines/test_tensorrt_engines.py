"""The tensorrt and tensorrt-rtx engines on a fake GPU: what they call, in which order, and how they handle failures.

No real engine runs here. Every call is bound to the signature of the installed bindings (tests/tensorrt_for_tests.py).
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import colour_rule_graph, expected_probability, make_bundle
from tensorrt_for_tests import (
    ILLEGAL_ADDRESS,
    Behaviour,
    FakeCuda,
    WrongCallError,
    check_cuda_call,
    check_trt_attribute,
    check_trt_call,
    fake_library,
    runtime,
    trt,
)

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines import device as device_module
from melanoma_infer.engines import device_arrays, load_engine, tensorrt_engine
from melanoma_infer.engines.engine_file import manifest_path
from melanoma_infer.engines.slots import BUCKETS
from melanoma_infer.engines.tensorrt_api import Api, import_api, new_logger
from melanoma_infer.engines.tensorrt_engine import CACHE, TensorRTEngine, load_with
from melanoma_infer.errors import (
    BundleError,
    EngineUnavailableError,
    GpuLostError,
    MemoryExhaustedError,
    UsageError,
)
from melanoma_infer.tolerances import DEFAULT_TOLERANCES

NAMES = ("tensorrt-rtx", "tensorrt")
SIDE = 64


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return open_bundle(make_bundle(tmp_path_factory.mktemp("bundles") / "colours.mminfer"))


@dataclass
class Machine:
    """A machine with one fake GPU."""

    gpu: FakeCuda
    behaviour: Behaviour
    api: Api

    def load(self, bundle: Bundle, **options: Any) -> TensorRTEngine:
        device, engine_file = options.get("device"), options.get("engine_file")
        return load_with(self.api.name, bundle, options.get("precision", "fp32"), device, engine_file)


@pytest.fixture
def new_machine(monkeypatch, tmp_path):
    """Creates machines with a driver, the bindings and their own cache."""
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path / "cache"))

    def make(name: str = "tensorrt-rtx", **gpu: Any) -> Machine:
        cuda = FakeCuda(**gpu)
        behaviour = Behaviour(cuda)
        library = fake_library(behaviour, rtx=name == "tensorrt-rtx", outputs={"probabilities": (2,)}, tile_px=SIDE)
        api = Api(name, library, new_logger(library))
        monkeypatch.setattr(tensorrt_engine, "import_api", lambda wanted: api)
        monkeypatch.setattr(tensorrt_engine, "import_cuda", lambda: cuda)
        return Machine(cuda, behaviour, api)

    return make


@pytest.fixture(params=NAMES)
def machine(request, new_machine) -> Machine:
    return new_machine(request.param)


def some_tiles(count: int, seed: int = 0) -> np.ndarray:
    """Tiles of various greys (N, 64, 64, 3), so that each has a different probability."""
    random = np.random.default_rng(seed)
    greys = random.integers(120, 240, (count, 1, 1, 1))
    return (greys + random.integers(-9, 10, (count, SIDE, SIDE, 3))).astype(np.uint8)


def assert_correct(engine: TensorRTEngine, tiles: np.ndarray, given: Any = None) -> None:
    answer = engine.infer(tiles if given is None else given)["probabilities"]
    assert answer.dtype == np.float32
    assert answer.shape == (len(tiles), 2)
    assert np.array_equal(answer[:, 1], expected_probability(tiles).astype(np.float32))


# The checks that all tests below rely on can fail.


@pytest.mark.parametrize(
    ("owner", "name", "args"),
    [
        ("IExecutionContext", "execute_async_v3", ()),
        ("IExecutionContext", "execute_async_v3", ("stream",)),
        ("IExecutionContext", "execute_async_v4", (1,)),
        ("IExecutionContext", "set_tensor_address", (7, "tiles")),
        ("IExecutionContext", "set_input_shape", ("tiles", 8)),
        ("ICudaEngine", "create_execution_context", (trt.CudaGraphStrategy.DISABLED,)),
        ("IBuilderConfig", "set_timing_cache", ("cache",)),
    ],
)
def test_a_wrong_call_of_the_library_is_detected(owner, name, args):
    with pytest.raises(WrongCallError):
        check_trt_call(owner, name, *args)


def test_a_wrong_call_of_the_cuda_runtime_is_detected():
    for name, *args in (("cudaMemcpy2", 1), ("cudaMalloc",), ("cudaMemcpyAsync", 1, 2, 3, 4, 5)):
        with pytest.raises(WrongCallError):
            check_cuda_call(name, *args)
    with pytest.raises(WrongCallError):
        check_trt_attribute("ICudaEngine", "num_profiles")


def test_correct_calls_are_accepted():
    check_trt_call("IExecutionContext", "set_input_shape", "tiles", (1, 2))
    check_trt_call("ICudaEngine", "create_execution_context", trt.ExecutionContextAllocationStrategy.STATIC)
    check_cuda_call("cudaMemcpyAsync", 1, 2, 3, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, 5)


# What it computes, and in which order.


@pytest.mark.parametrize("count", [0, 1, 3, 33, 70])
def test_outputs_are_correct_for_any_number_of_tiles(machine, bundle, count):
    engine = machine.load(bundle)
    for seed in range(2):  # reused buffers give the same as new ones
        assert_correct(engine, some_tiles(count, seed))


def test_its_numerics_name_library_version_precision_and_gpu(machine, bundle):
    numerics = machine.load(bundle).numerics
    assert str(numerics) == f"{machine.api.name} {machine.api.version} fp32 on RTX A4000"


def test_tensorrt_replays_a_captured_graph_and_tensorrt_rtx_captures_its_own(new_machine, bundle):
    for name, launches in (("tensorrt", 3), ("tensorrt-rtx", 0)):
        machine = new_machine(name)
        engine = machine.load(bundle)
        machine.gpu.launches = 0
        engine.infer(some_tiles(70))
        assert machine.gpu.launches == launches


def test_an_engine_that_cannot_be_captured_runs_without_a_graph(new_machine, bundle):
    machine = new_machine("tensorrt")
    machine.behaviour.fails_in_capture = True
    assert_correct(machine.load(bundle), some_tiles(5))
    assert machine.gpu.launches == 0


def test_tensorrt_uses_the_profile_of_the_batch_size(new_machine, bundle):
    machine = new_machine("tensorrt")
    engine = machine.load(bundle)
    engine.infer(some_tiles(70))
    assert machine.behaviour.profiles == len(BUCKETS)
    assert all(BUCKETS[getattr(each, "profile", 0)] == each.rows for each in machine.behaviour.contexts)


def test_everything_that_was_created_is_freed(machine, bundle):
    engine = machine.load(bundle)
    engine.infer(some_tiles(40))
    assert machine.gpu.live
    machine.behaviour.contexts.clear()
    del engine
    gc.collect()
    assert machine.gpu.live == {}


def test_every_call_is_on_the_chosen_gpu(machine, bundle):
    machine.gpu.gpus = 3
    machine.load(bundle, device="cuda:2").infer(some_tiles(2))
    assert set(machine.gpu.current) == {2}


# Tiles in GPU memory.


class OnGpu:
    """Tiles in GPU memory as from PyTorch or CuPy, while a stream is still writing them."""

    def __init__(self, gpu: FakeCuda, tiles: np.ndarray, **changes: Any) -> None:
        pointer = gpu.allocate(tiles.nbytes)
        self.stream = gpu.handle("cudaStream_t", "of another library")
        queue = gpu.queues[int(self.stream)] = type(next(iter(gpu.queues.values())))()
        queue.add(lambda: gpu.live[pointer].__setitem__(slice(None), tiles.reshape(-1)))
        self.__cuda_array_interface__ = {
            "shape": tiles.shape, "typestr": "|u1", "data": (pointer, False), "version": 3,
            "strides": None, "stream": int(self.stream), **changes,
        }  # fmt: skip


@pytest.mark.parametrize("count", [1, 5, 70])
def test_tiles_in_gpu_memory_are_not_copied_through_the_host(machine, bundle, count):
    engine = machine.load(bundle)
    tiles = some_tiles(count)
    given = OnGpu(machine.gpu, tiles)
    machine.gpu.copies.clear()
    assert_correct(engine, tiles, given)
    assert set(machine.gpu.copies) == {"DeviceToDevice", "DeviceToHost"}


def test_tiles_of_another_dtype_or_layout_are_refused(machine, bundle):
    engine, tiles = machine.load(bundle), some_tiles(2)
    for changes in (
        {"typestr": "<f4"},
        {"strides": (3 * SIDE * SIDE, 1, SIDE, SIDE * SIDE)},
        {"shape": (2, 3, 64, 64)},
    ):
        with pytest.raises(UsageError):
            engine.infer(OnGpu(machine.gpu, tiles, **changes))


class OfDlpack:
    """An array with DLPack only, which claims to be on a GPU."""

    def __init__(self, array: np.ndarray, number: int = 0) -> None:
        self._array, self._number, self.streams = array, number, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._number

    def __dlpack__(self, *, stream: int) -> object:
        self.streams.append(stream)
        return self._array.__dlpack__()


def test_dlpack_is_not_copied_through_the_host_and_its_owner_gets_our_stream(machine, bundle):
    engine, tiles = machine.load(bundle), some_tiles(7)
    given = OfDlpack(tiles[2:])
    machine.gpu.copies.clear()
    assert_correct(engine, tiles[2:], given)
    assert "HostToDevice" not in machine.gpu.copies
    assert set(given.streams) <= set(machine.gpu.queues)
    with pytest.raises(UsageError, match="uint8"):
        engine.infer(OfDlpack(tiles.astype(np.float32)))
    with pytest.raises(UsageError, match="contiguous"):
        engine.infer(OfDlpack(tiles[:, ::2]))
    with pytest.raises(UsageError, match="cuda:1"):
        engine.infer(OfDlpack(tiles, number=1))


def test_a_dlpack_tensor_may_have_a_byte_offset():
    """NumPy and PyTorch never use one; other libraries do."""
    tiles = some_tiles(3)
    capsule = tiles.__dlpack__()
    tensor = device_arrays._tensor_in(capsule)
    tensor.data, tensor.byte_offset = tensor.data - 4096, 4096
    found = device_arrays._from_capsule(capsule, 0)
    assert (found.pointer, found.shape, found.device) == (tiles.ctypes.data, tiles.shape, 0)
    assert found[1:].pointer == tiles[1:].ctypes.data


def test_a_pytorch_tensor_in_host_memory_is_accepted(machine, bundle):
    import torch

    tiles = some_tiles(3)
    assert_correct(machine.load(bundle), tiles, torch.from_numpy(tiles))


# Failures.


def test_a_gpu_with_little_memory_computes_in_smaller_batches(new_machine, bundle):
    machine = new_machine(memory_bytes=2 * 4 * SIDE * SIDE * 3 + 40_000)
    engine = machine.load(bundle)
    assert_correct(engine, some_tiles(9))
    assert engine.buckets[-1] < BUCKETS[-1]


def test_a_gpu_without_memory_for_one_tile_is_exit_175(new_machine, bundle):
    machine = new_machine(memory_bytes=100)
    with pytest.raises(MemoryExhaustedError) as caught:
        machine.load(bundle)
    assert caught.value.exit_code == 175


def test_an_engine_that_does_not_fit_is_exit_175(machine, bundle):
    machine.behaviour.fails_on_load = "Error Code 2: OutOfMemory (Requested size was 4 bytes.)"
    with pytest.raises(MemoryExhaustedError, match="OutOfMemory"):
        machine.load(bundle)


def test_a_lost_gpu_is_exit_177(machine, bundle):
    engine = machine.load(bundle)
    machine.gpu.sticky = ILLEGAL_ADDRESS
    with pytest.raises(GpuLostError, match="IllegalAddress") as caught:
        engine.infer(some_tiles(1))
    assert caught.value.exit_code == 177


def test_another_failure_is_exit_21_with_the_library_s_message(new_machine, bundle):
    machine = new_machine("tensorrt-rtx")
    engine = machine.load(bundle)
    machine.behaviour.fails_on_run = "Error Code 1: Myelin (no kernel)\nat line 3"
    with pytest.raises(EngineUnavailableError, match=r"no kernel.*--engine openvino") as caught:
        engine.infer(some_tiles(1))
    assert caught.value.exit_code == 21
    machine.behaviour.fails_on_run = None
    assert_correct(engine, some_tiles(3))


# Engine files: given by the user, cached, built.


def cached_engines() -> list[Path]:
    return sorted((Path(os.environ["MMINFER_CACHE"]) / CACHE).glob("*.engine"))


def test_an_engine_is_built_once_and_cached(machine, bundle):
    for _ in range(2):
        assert_correct(machine.load(bundle), some_tiles(2))
    assert machine.behaviour.built == 1
    assert len(cached_engines()) == 1


@pytest.mark.parametrize("damaged", ["engine", "manifest", "no manifest"])
def test_a_damaged_engine_in_the_cache_is_built_again(machine, bundle, damaged):
    machine.load(bundle)
    (engine,) = cached_engines()
    whole = engine.read_bytes()
    if damaged == "no manifest":
        manifest_path(engine).unlink()
    else:
        flip_a_byte(engine if damaged == "engine" else manifest_path(engine))
    machine.load(bundle)
    assert machine.behaviour.built == 2
    assert machine.behaviour.opened[-1] == cached_engines()[0].read_bytes()
    assert len(machine.behaviour.opened[-1]) == len(whole)


def test_an_intact_engine_of_another_model_in_the_cache_is_built_again(machine, bundle):
    machine.load(bundle)
    (engine,) = cached_engines()
    manifest = json.loads(manifest_path(engine).read_bytes())
    manifest["origin"]["onnx_sha256"] = "0" * 64
    manifest_path(engine).write_text(json.dumps(manifest))
    machine.load(bundle)
    assert machine.behaviour.built == 2


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_each_version_graph_and_gpu_has_its_own_engine(new_machine, bundle, tmp_path):
    new_machine("tensorrt-rtx").load(bundle)
    newer = new_machine("tensorrt-rtx")
    newer.api.trt.__version__ = "1.8"
    newer.load(bundle)
    new_machine("tensorrt-rtx", model=b"RTX 4090", target=(8, 9)).load(bundle)
    graph = colour_rule_graph(SIDE)
    graph.doc_string = "other bytes"
    new_machine("tensorrt-rtx").load(open_bundle(make_bundle(tmp_path / "other.mminfer", graph=graph)))
    assert len(cached_engines()) == 4


def test_the_timing_cache_is_reused_by_the_next_build(new_machine, bundle, tmp_path):
    machine = new_machine("tensorrt", model=b"Quadro RTX 6000/8000")
    machine.load(bundle)
    cached_engines()[0].unlink()
    machine.load(bundle)
    assert machine.behaviour.timings == [b"", b"timings"]


def test_an_engine_loads_without_a_writable_cache(machine, bundle, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path / "file"))
    assert_correct(machine.load(bundle), some_tiles(2))


@pytest.fixture
def named(new_machine, bundle, tmp_path) -> Path:
    """An engine file of TensorRT-RTX for sm86, outside the cache."""
    new_machine("tensorrt-rtx").load(bundle)
    (engine,) = cached_engines()
    kept = tmp_path / "kept.engine"
    kept.write_bytes(engine.read_bytes())
    manifest_path(kept).write_bytes(manifest_path(engine).read_bytes())
    engine.unlink()
    return kept


def test_a_given_engine_file_is_used(new_machine, bundle, named):
    machine = new_machine("tensorrt-rtx")
    assert_correct(machine.load(bundle, engine_file=named), some_tiles(2))
    assert machine.behaviour.built == 0
    assert machine.behaviour.opened == [named.read_bytes()]


def test_an_engine_file_with_one_byte_changed_is_exit_20_before_a_runtime_opens_it(new_machine, bundle, named):
    machine = new_machine("tensorrt-rtx")
    flip_a_byte(named)
    with pytest.raises(BundleError, match="SHA-256 differs") as caught:
        machine.load(bundle, engine_file=named)
    assert caught.value.exit_code == 20
    assert machine.behaviour.opened == []
    manifest_path(named).unlink()
    with pytest.raises(BundleError, match="manifest"):
        machine.load(bundle, engine_file=named)


def test_an_engine_file_of_another_model_is_exit_20(new_machine, named, tmp_path):
    graph = colour_rule_graph(SIDE)
    graph.doc_string = "other bytes"
    other = open_bundle(make_bundle(tmp_path / "other.mminfer", graph=graph))
    with pytest.raises(BundleError, match="not built from this bundle"):
        new_machine("tensorrt-rtx").load(other, engine_file=named)


@pytest.mark.parametrize(
    ("gpu", "version", "words"),
    [
        ({"target": (8, 9), "model": b"RTX 4090"}, "1.7.1.116", "RTX 4090"),
        ({}, "1.9", "TensorRT-RTX 1.9"),
    ],
)
def test_an_engine_file_for_another_gpu_or_version_is_exit_21(new_machine, bundle, named, gpu, version, words):
    machine = new_machine("tensorrt-rtx", **gpu)
    machine.api.trt.__version__ = version
    with pytest.raises(EngineUnavailableError, match=words):
        machine.load(bundle, engine_file=named)
    assert machine.behaviour.opened == []


def test_an_engine_without_weights_gets_the_bundle_s(new_machine, bundle, named):
    manifest = json.loads(manifest_path(named).read_bytes())
    manifest["origin"]["flags"].append("strip-weights")
    manifest_path(named).write_text(json.dumps(manifest))
    machine = new_machine("tensorrt-rtx")
    machine.load(bundle, engine_file=named)
    assert machine.behaviour.refitted == [bundle.graphs["fp32"]]


def test_an_engine_file_is_for_these_engines_only(bundle, named):
    with pytest.raises(UsageError, match="--engine tensorrt"):
        load_engine(bundle, "openvino", engine_file=named)
    with pytest.raises(UsageError, match="--engine tensorrt"):
        load_engine(bundle, engine_file=named)


def test_load_engine_takes_an_engine_file(new_machine, bundle, named):
    new_machine("tensorrt-rtx")
    assert load_engine(bundle, "tensorrt-rtx", engine_file=named).engine.numerics.engine == "tensorrt-rtx"


# On a real GPU only: not run yet.


@pytest.fixture(scope="module", params=NAMES)
def on_gpu(request, tmp_path_factory) -> TensorRTEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            return load_with(request.param, open_bundle("demo"), "fp32", None, None)
        except EngineUnavailableError as error:
            pytest.skip(str(error))


@pytest.mark.gpu
def test_golden_outputs_within_the_tolerance(on_gpu):
    golden = open_bundle("demo").golden
    outputs, tolerance = on_gpu.infer(golden.tiles), DEFAULT_TOLERANCES["fp32"]
    assert set(outputs) == set(golden.outputs)
    assert np.abs(outputs["probabilities"] - golden.outputs["probabilities"]).max() <= tolerance.dp
    assert np.abs(outputs["depth_mm"] - golden.outputs["depth_mm"]).max() <= tolerance.dmm


@pytest.mark.gpu
def test_many_batches_in_flight_give_the_bits_of_one_at_a_time(on_gpu):
    tiles = np.random.default_rng(1).integers(0, 256, (67, 512, 512, 3), dtype=np.uint8)
    together = on_gpu.infer(tiles)
    for rows in (slice(0, 32), slice(32, 64), slice(64, 67)):
        alone = on_gpu.infer(tiles[rows])
        assert all(np.array_equal(together[name][rows], alone[name]) for name in together)


@pytest.mark.gpu
def test_a_pytorch_tensor_on_the_gpu_gives_the_same_bits(on_gpu):
    import torch

    tiles = open_bundle("demo").golden.tiles
    expected = on_gpu.infer(tiles)
    given = torch.from_numpy(tiles).cuda()
    for each in (given, OnlyDlpack(given)):
        outputs = on_gpu.infer(each)
        assert all(np.array_equal(outputs[name], expected[name]) for name in expected)


class OnlyDlpack:
    """A tensor reduced to its DLPack methods."""

    def __init__(self, tensor: Any) -> None:
        self.__dlpack_device__ = tensor.__dlpack_device__
        self.__dlpack__ = tensor.__dlpack__


# Where the engines cannot run.


@pytest.mark.parametrize("name", NAMES)
def test_no_driver_says_what_to_use(bundle, monkeypatch, name):
    monkeypatch.setattr(device_module, "DRIVER_FILES", ())
    with pytest.raises(EngineUnavailableError, match=r"no NVIDIA driver.*--engine openvino"):
        load_engine(bundle, name)


def test_no_nvidia_library_is_imported_without_a_driver():
    code = (
        "import sys\n"
        "from melanoma_infer.engines import device\n"
        "device.DRIVER_FILES = ()\n"
        "from melanoma_infer.bundle.bundle import open_bundle\n"
        "from melanoma_infer.engines import load_engine\n"
        "demo = open_bundle('demo')\n"
        "choice = load_engine(demo)\n"
        "print(choice.engine.numerics.engine, choice.skipped)\n"
        "for name in ('tensorrt', 'tensorrt-rtx'):\n"
        "    try: load_engine(demo, name)\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(sorted({'torch', 'tensorrt', 'tensorrt_rtx', 'cuda'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert said.stdout.split("\n")[:4] == ["openvino ()", *["EngineUnavailableError"] * 2, "[]"], said.stderr


def test_an_nvidia_driver_makes_auto_try_them_after_triton(monkeypatch):
    from melanoma_infer import engines

    monkeypatch.setattr(device_module, "DRIVER_FILES", ())
    assert engines.candidates()[0] == "openvino"
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    assert engines.candidates()[:4] == ["triton", "tensorrt", "tensorrt-rtx", "openvino"]


def test_a_library_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailableError, match=r"TensorRT does not load.*pip install 'mminfer\[tensorrt\]'"):
        import_api("tensorrt")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    from melanoma_infer.engines.cuda import import_cuda

    with pytest.raises(EngineUnavailableError, match="pip install"):
        import_cuda()


def test_the_real_cuda_runtime_without_a_driver_says_so():
    from melanoma_infer.engines.cuda import find_gpu

    if runtime.cudaGetDeviceCount()[0] == 0:
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineUnavailableError, match="CUDA finds no GPU here"):
        find_gpu(runtime, None)


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "cuda:x", "tpu"])
def test_an_unknown_device_is_refused(machine, bundle, device):
    with pytest.raises(EngineUnavailableError, match="no CUDA device"):
        machine.load(bundle, device=device)


def test_a_gpu_that_tensorrt_rtx_does_not_support_is_refused(new_machine, bundle):
    machine = new_machine("tensorrt-rtx", target=(9, 0), model=b"H200")
    with pytest.raises(EngineUnavailableError, match=r"H200 \(sm90\).*triton or tensorrt"):
        machine.load(bundle)


def test_a_precision_without_a_graph_says_how_to_export_one(machine, bundle):
    with pytest.raises(EngineUnavailableError, match=r"no fp16 graph.*mminfer export"):
        machine.load(bundle, precision="fp16")


def test_auto_skips_an_engine_that_gives_other_numbers(bundle, monkeypatch):
    """An engine that no GPU has verified yet must give the golden outputs before it is chosen."""
    wrong = bundle.golden.outputs["probabilities"] + np.float32(0.01)
    stub = SimpleNamespace(
        numerics=SimpleNamespace(precision="fp32", engine="tensorrt"),
        tiles_at_once=1,
        infer_each=lambda tiles: [{"probabilities": row[None]} for row, _ in zip(wrong, tiles, strict=True)],
    )
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setattr(tensorrt_engine, "load", lambda *_: stub)
    choice = load_engine(bundle)
    assert choice.engine.numerics.engine == "openvino"
    assert any("tensorrt: fp32 differs from the golden probabilities" in why for why in choice.skipped)
