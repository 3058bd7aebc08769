"""The triton engine: its numbers in Triton's interpreter and on a GPU, and a plain word where it cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_torch_cuda_for_tests import draw_calls, draw_devices
from interpreted_device_for_tests import interpreted_engine, interpreted_operators
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from triton import OutOfResources

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.engines import ON_GPU, load_engine, torch_device, triton_engine
from melanoma_infer.engines import device as device_module
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.engines.device import DeviceError, DeviceLostError, DeviceMemoryError, Stream
from melanoma_infer.engines.slots import BUCKETS
from melanoma_infer.engines.torch_device import CudaDevice, KernelNetwork, on_gpu, reproducible, translated
from melanoma_infer.engines.torch_engine import network_of
from melanoma_infer.engines.triton_engine import TritonEngine
from melanoma_infer.errors import (
    EngineUnavailableError,
    GpuLostError,
    MemoryExhaustedError,
)
from melanoma_infer.model.resnet50 import ResNet50Backbone
from melanoma_infer.scoring.aggregation import aggregate
from melanoma_infer.tolerances import DEFAULT_TOLERANCES
from mminfer_kernels import torch_ops
from mminfer_kernels.bounds import compare
from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.launch import tail_plan

CUDA = torch.device("cuda", 0)
OUTPUTS = ["probabilities", "depth_mm", "attention", "cam", "features"]
PLACES = [
    pytest.param("cpu", marks=pytest.mark.interpreter, id="interpreted"),
    pytest.param("cuda", marks=pytest.mark.gpu, id="cuda"),
]
RMS_OF_FEATURES = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 5e-2}
"""Relative; features sum 128 products a pixel, whose rounding is 2^-24, 2^-11 and 2^-8 a layer."""


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle("demo")


@pytest.fixture(params=PLACES)
def place(request, monkeypatch) -> str:
    """Where kernels run: in the interpreter, with exact products, or on a GPU."""
    if request.param == "cpu":
        with interpreted_operators():
            yield "cpu"
    else:
        yield "cuda"


@pytest.fixture
def driver(monkeypatch):
    """A machine with an NVIDIA driver, as far as a file can tell."""
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(device_module, "DRIVER_FILES", ())


def load(bundle: Bundle, place: str, precision: str = "fp32", buckets: tuple[int, ...] = (1, 2, 4)) -> TritonEngine:
    if place == "cpu":
        return interpreted_engine(bundle, precision, buckets)
    return triton_engine.load(bundle, precision, None, place, buckets=buckets)


@cache
def golden_outputs(place: str, precision: str) -> Outputs:
    """The engine's outputs for the demo bundle's golden tiles; the interpreter takes seconds, so they are kept."""
    bundle = open_bundle("demo")
    return load(bundle, place, precision).infer(bundle.golden.tiles)


def relative_rms(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.square(actual - expected).mean() / np.square(expected).mean()))


def assert_same_bits(outputs: Outputs, others: Outputs, rows: slice, other_rows: slice) -> None:
    for name in OUTPUTS:
        assert np.array_equal(outputs[name][rows], others[name][other_rows]), name


# What it computes.


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_golden_outputs_within_the_tolerance(demo, place, precision):
    outputs, golden = golden_outputs(place, precision), demo.golden.outputs
    assert list(outputs) == OUTPUTS
    for name, values in outputs.items():
        assert values.dtype == np.float32
        assert values.shape == golden[name].shape
    tolerance = DEFAULT_TOLERANCES[precision]
    assert np.abs(outputs["probabilities"] - golden["probabilities"]).max() <= tolerance.dp
    assert np.abs(outputs["depth_mm"] - golden["depth_mm"]).max() <= tolerance.dmm
    assert relative_rms(outputs["features"], golden["features"]) <= RMS_OF_FEATURES[precision]
    if precision == "fp32":  # a ReLU that rounding switches changes a map by more than rounding does
        assert relative_rms(outputs["cam"], golden["cam"]) <= 1e-5
        assert relative_rms(outputs["attention"], golden["attention"]) <= 1e-5


@pytest.mark.slow
def test_bf16_is_not_much_further_off_than_openvino_s(demo, place):
    """What OpenVINO reached is sealed. Which of two roundings moves p more is chance: 1.2 times as far was seen."""
    outputs = golden_outputs(place, "bf16")
    sealed = demo.parity_of("openvino", "bf16")
    assert np.abs(outputs["probabilities"] - demo.golden.outputs["probabilities"]).max() <= 1.5 * sealed.max_dp
    assert relative_rms(outputs["features"], demo.golden.outputs["features"]) <= RMS_OF_FEATURES["bf16"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_depth_does_not_depend_on_the_backbone_s_precision(place, precision):
    exact, low = (golden_outputs(place, each)["depth_mm"] for each in ("fp32", precision))
    assert np.array_equal(exact, low)


def test_batchnorm_is_folded_into_the_convolutions_within_the_rounding_of_float32(demo):
    net = network_of(demo)
    norms = [module for module in net.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    images = net.normalised(torch.from_numpy(demo.golden.tiles[:2])).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain, exact = net.backbone(images), deepcopy(net.backbone).double()(images.double())
        KernelNetwork(net, torch.float32, torch.device("cpu"))
        folded = net.backbone(images)
    assert len(norms) == 53  # ResNet-50 has as many as convolutions
    kinds = [type(module) for module in net.backbone.modules()]
    assert (kinds.count(nn.BatchNorm2d), kinds.count(nn.Conv2d)) == (0, 53)
    comparison = compare(folded, exact, plain)
    assert comparison.holds, comparison
    assert folded.is_contiguous(memory_format=torch.channels_last)


class Largest(TorchDispatchMode):
    """The number of values of the largest float32 tensor that an operator returned."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.values = max(self.values, result.numel())
        return result


def test_the_depth_module_gets_its_averages_without_a_float32_copy_of_the_tiles(demo, monkeypatch):
    """A second normalisation wrote and read four bytes for each byte of a tile, to take means of 16 of them."""
    network = KernelNetwork(network_of(demo), torch.float16, torch.device("cpu"))
    monkeypatch.setattr(ResNet50Backbone, "forward", lambda *_: torch.zeros(1, 512, 16, 16, dtype=torch.float16))
    monkeypatch.setattr(
        torch_ops, "normalize_tiles", lambda tiles, mean, std, dtype: tiles.permute(0, 3, 1, 2).to(dtype)
    )
    tiles = torch.from_numpy(demo.golden.tiles[:1])
    with torch.inference_mode(), Largest() as largest:
        outputs = network(tiles)
    assert np.abs(outputs.depth_mm.numpy() - demo.golden.outputs["depth_mm"][:1]).max() < 1e-4
    assert largest.values <= 512 * 16 * 16  # the backbone's map, in the reference of the tail


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_every_convolution_of_the_backbone_is_channels_last_in_its_dtype(demo, dtype):
    net = network_of(demo)
    KernelNetwork(net, dtype, torch.device("cpu"))
    for module in net.backbone.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.dtype == module.bias.dtype == dtype
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
            assert not module.weight.requires_grad
    assert net.depth.conv1.weight.dtype == torch.float32


def test_compiled_kernels_are_kept_in_our_cache(demo, driver, monkeypatch, tmp_path):
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_unavailable(demo, "no CUDA device")  # the cache is chosen before the device is looked for
    assert os.environ.pop("TRITON_CACHE_DIR") == str(tmp_path / "triton")


def test_normalisation_and_tail_are_the_kernels(demo, place, monkeypatch):
    """A map that is not channels-last would silently go round them."""
    launched = []
    real = torch_ops._launched
    monkeypatch.setattr(torch_ops, "_launched", lambda name, *rest: launched.append(name) or real(name, *rest))
    load(demo, place, "fp16", buckets=(1,)).infer(demo.golden.tiles[:1])
    once = ["normalize_tiles", "attention_tail"]
    assert launched == once * (1 if place == "cpu" else 2)  # run once, then captured


def test_a_tile_s_bits_depend_on_no_neighbour_and_no_padding(demo, place):
    engine = load(demo, place, "fp16", buckets=(2,))
    first, second, other = demo.golden.tiles[:3, None]
    beside = engine.infer(np.concatenate([first, second]))
    assert_same_bits(beside, engine.infer(first), slice(1), slice(1))
    assert_same_bits(beside, engine.infer(np.concatenate([first, other])), slice(1), slice(1))


def test_a_tile_that_overflows_leaves_its_neighbours_alone(demo, place):
    """fp16 ends at 65504: a card that divides by little makes any tile but a grey one overflow."""
    card = demo.card.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (2e-6, 2e-6, 2e-6)})
    engine = load(replace(demo, card=card), place, "fp16", buckets=(2,))
    black, white = np.zeros((1, 512, 512, 3), np.uint8), np.full((1, 512, 512, 3), 255, np.uint8)
    alone, beside = engine.infer(black), engine.infer(np.concatenate([black, white]))
    assert not np.isfinite(beside["features"][1]).all()
    assert all(np.isfinite(beside[name][0]).all() for name in OUTPUTS)
    assert_same_bits(alone, beside, slice(1), slice(1))


def test_two_engines_give_the_same_bits(demo, place):
    tiles = demo.golden.tiles[:1]
    first, second = (load(demo, place, "fp16", buckets=(1,)) for _ in range(2))
    outputs = first.infer(tiles)
    assert_same_bits(outputs, second.infer(tiles), slice(None), slice(None))
    assert_same_bits(outputs, first.infer(tiles), slice(None), slice(None))


@pytest.mark.parametrize("kind", ["mean", "max", "top-area-mean"])
def test_a_slide_s_score_has_the_bits_of_the_host_s(demo, place, kind):
    engine = load(demo, place, buckets=(1,))
    random = np.random.default_rng(4)
    for tiles in (1, 7, 1500):
        scores = random.random(tiles)
        given = {"tile_mm2": 0.07, "area_mm2": 1.0}
        assert aggregate(scores, kind, **given, sum_scores=engine.score_sums) == aggregate(scores, kind, **given)


def test_no_tiles_give_empty_outputs(demo, place):
    outputs = load(demo, place, buckets=(1,)).infer(demo.golden.tiles[:0])
    assert {name: values.shape for name, values in outputs.items()} == {
        name: (0, *demo.golden.outputs[name].shape[1:]) for name in OUTPUTS
    }


def test_rows_are_uploaded_to_the_rows_of_a_buffer_that_were_asked_for(monkeypatch):
    current, place = draw_devices(monkeypatch), torch.device("cuda", 1)
    draw_calls(monkeypatch, current)
    with on_gpu(place):
        device = CudaDevice(None, place)
    rows, target = device.pinned((2, 3), np.uint8), device.buffer((5, 3), np.uint8)
    rows[...] = 7
    device.upload(rows, target, 2)
    assert target[:, 0].tolist() == [0, 0, 7, 7, 0]


def test_every_call_is_on_the_engine_s_gpu_whatever_the_program_uses(monkeypatch):
    """Pinned memory, events and pools belong to the device that is current when they are made."""
    current, place = draw_devices(monkeypatch), torch.device("cuda", 1)
    draw_calls(monkeypatch, current)
    with on_gpu(place):
        device = CudaDevice(None, place)
    rows, target = device.pinned((2, 3), np.uint8), device.buffer((2, 3), np.uint8)
    device.upload(rows, target)
    device.upload(target[1:], target)
    monkeypatch.setattr(device, "_resize", current.noting("resize"))
    device.resize([], target, 0)
    monkeypatch.setattr(torch_device, "score_sums", current.noting("score_sums"))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, _place: tensor)
    device.score_sums(np.zeros(3, np.int64), 1)
    device.launch(SimpleNamespace(replay=current.noting("replay")))
    device.download(target, rows)
    event = device.record(Stream.UPLOAD)
    device.wait(Stream.COMPUTE, event)
    device.synchronize(event)
    device.release()
    names = {name for name, _ in current.calls}
    assert names >= {"stream", "zeros", "event", "record", "wait", "replay", "resize", "score_sums"}
    assert names >= {"empty_cache", "graph_pool_handle"}
    assert {number for _, number in current.calls} == {1}
    assert current.number == 0


@pytest.mark.parametrize(
    "processors", [58, 108, 128, 132, 148, 170], ids=["L4", "A100", "4090", "H100", "B200", "5090"]
)
def test_a_full_batch_is_one_launch_of_the_tail_on_every_gpu(processors):
    """Half as many tiles as multiprocessors: with 32 tiles the one-launch kernel ran on no large GPU."""
    assert tail_plan(BUCKETS[-1], 256, processors)[0] == "attention_tail"


# On a GPU alone.


@pytest.mark.gpu
def test_a_gpu_s_convolutions_are_fused(demo):
    network = KernelNetwork(network_of(demo), torch.float16, torch.device("cuda"))
    assert network.is_fused


@pytest.mark.gpu
def test_many_batches_in_flight_give_the_bits_of_one_at_a_time(demo):
    random = np.random.default_rng(1)
    tiles = random.integers(0, 256, (47, 512, 512, 3), dtype=np.uint8)
    engine = load(demo, "cuda", "fp16", buckets=(4,))
    together = engine.infer(tiles)
    for first in range(0, len(tiles), 4):
        rows = slice(first, first + 4)
        assert_same_bits(together, engine.infer(tiles[rows]), rows, slice(None))
    assert_same_bits(together, engine.infer(tiles), slice(None), slice(None))


@pytest.mark.gpu
def test_a_gpu_with_little_memory_computes_in_smaller_batches(demo):
    engine = load(demo, "cuda", "fp32", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256))
    tiles = np.concatenate([demo.golden.tiles] * 64)
    free = torch.cuda.memory_reserved(CUDA) + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(free / torch.cuda.get_device_properties(CUDA).total_memory, CUDA)
    try:
        outputs = engine.infer(tiles)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    assert engine.buckets[-1] < 256
    expected = np.concatenate([demo.golden.outputs["probabilities"]] * 64)
    assert np.abs(outputs["probabilities"] - expected).max() <= DEFAULT_TOLERANCES["fp32"].dp


@pytest.mark.gpu
def test_a_lost_gpu_is_exit_177():
    """In a process of its own: an index beyond a tensor's end poisons the CUDA context."""
    code = (
        "import numpy as np, torch\n"
        "from melanoma_infer.bundle.bundle import open_bundle\n"
        "from melanoma_infer.engines import load_engine\n"
        "from melanoma_infer.errors import GpuLostError\n"
        "bundle = open_bundle('demo')\n"
        "engine = load_engine(bundle, 'triton').engine\n"
        "torch.zeros(1, device='cuda')[torch.tensor([99], device='cuda')]\n"
        "try: engine.infer(bundle.golden.tiles)\n"
        "except GpuLostError as error: print('LOST', error.exit_code)\n"
    )
    assert run(code).stdout.endswith("LOST 177\n")


@pytest.mark.gpu
def test_auto_computes_on_the_gpu_and_skips_only_what_is_not_made_for_it(demo):
    choice = load_engine(demo)
    assert choice.engine.numerics.engine in ON_GPU
    assert choice.engine.numerics.device == torch.cuda.get_device_name(CUDA)
    assert all("does not load here" in why or "does not run on" in why for why in choice.skipped)


# Where it cannot run.


def test_auto_without_a_driver_never_imports_torch():
    code = (
        "import sys\n"
        "from melanoma_infer.engines import device\n"
        "device.DRIVER_FILES = ()\n"
        "from melanoma_infer.bundle.bundle import open_bundle\n"
        "from melanoma_infer.engines import load_engine\n"
        "demo = open_bundle('demo')\n"
        "print(load_engine(demo).engine.numerics.engine)\n"
        "try: load_engine(demo, 'triton')\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(sorted({'torch', 'triton'} & set(sys.modules)))\n"
    )
    assert run(code).stdout.split("\n")[:3] == ["openvino", "EngineUnavailableError", "[]"]


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)


def assert_unavailable(bundle: Bundle, *words: str, precision: str = "fp32", device: str | None = None) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        load_engine(bundle, "triton", precision=precision, device=device)
    assert all(word in str(caught.value) for word in words), caught.value


def test_no_driver_says_what_to_use(demo, no_driver):
    assert_unavailable(demo, "no NVIDIA driver", "--engine openvino")


def test_a_build_of_torch_that_finds_no_gpu_says_what_to_look_at(demo, driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_unavailable(demo, torch.__version__, "nvidia-smi", "--engine openvino")


@pytest.mark.parametrize("missing", ["torch", "triton"])
def test_what_is_not_installed_says_what_to_install(demo, driver, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert_unavailable(demo, "pip install 'mminfer[torch]'")


def test_a_gpu_older_than_sm_80_says_so(demo, driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: "Tesla T4")
    assert_unavailable(demo, "Tesla T4 is sm_75", "sm_80", "--engine openvino", device="cuda:0")


@pytest.mark.parametrize(("device", "error"), [("cuda:9", AssertionError("Invalid device id")), ("tpu:x", None)])
def test_a_device_that_is_not_there_says_so(demo, driver, monkeypatch, device, error):
    def capability(place):
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    assert_unavailable(demo, f"no CUDA device {device!r}", "--device", device=device)


def test_a_cpu_is_refused(demo, driver):
    assert_unavailable(demo, "CUDA device", "--engine openvino", device="cpu")


def test_int8_and_bundles_without_weights_are_refused(demo, driver):
    assert_unavailable(demo, "fp16, bf16, fp32", precision="int8")
    assert_unavailable(replace(demo, weights=None), "weights", "--engine openvino")


# What `auto` makes of it.


class Stub:
    """An engine that gives the golden outputs, changed."""

    numerics = Numerics("triton", "0", "fp32", "a GPU")
    buckets = (1,)
    tiles_at_once = 1

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def infer_each(self, tiles: Iterable[np.ndarray]) -> Iterator[Outputs]:
        return ({name: values[i : i + 1] for name, values in self._outputs.items()} for i, _ in enumerate(tiles))


@pytest.mark.parametrize(
    ("changed", "by", "taken"),
    [
        ("probabilities", 0.0, True),
        ("probabilities", 2e-4, False),
        ("probabilities", np.nan, False),
        ("depth_mm", 0.006, False),
        ("depth_mm", np.nan, False),
    ],
)
def test_auto_takes_triton_where_it_gives_the_golden_outputs(demo, driver, monkeypatch, changed, by, taken):
    golden = demo.golden.outputs
    outputs = {**golden, changed: golden[changed] + np.float32(by)}
    monkeypatch.setattr(triton_engine, "load", lambda *_: Stub(outputs))
    choice = load_engine(demo)
    assert choice.engine.numerics.engine == ("triton" if taken else "openvino")
    if not taken:
        assert choice.skipped[2].startswith(f"triton: fp32 differs from the golden {changed}")


@pytest.mark.parametrize("error", [MemoryExhaustedError("full"), GpuLostError("gone"), EngineUnavailableError("old")])
def test_auto_skips_a_gpu_that_does_not_work_and_says_why(demo, driver, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(triton_engine, "load", fails)
    choice = load_engine(demo)
    assert choice.engine.numerics.engine == "openvino"
    assert choice.skipped[2] == f"triton: {error}"
    with pytest.raises(type(error)):
        load_engine(demo, "triton")


# Errors of the runtime.


def raised_during(error: BaseException, cause: BaseException) -> BaseException:
    error.__context__ = cause
    return error


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has a total capacity of 3 GiB.")
FAILURES = [
    (FULL, DeviceMemoryError),
    (torch.AcceleratorError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), DeviceMemoryError),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), DeviceMemoryError),
    (raised_during(RuntimeError("the capture was invalidated"), FULL), DeviceMemoryError),
    (torch.AcceleratorError("CUDA error: invalid argument"), DeviceError),
    (KernelInputError("x has 0 pixels"), DeviceError),
    (OutOfResources(300_000, 232_448, "shared memory"), DeviceError),
    (subprocess.CalledProcessError(1, ["gcc", "/home/someone/kernel.c"]), DeviceError),
    (AssertionError("libcuda.so cannot found!\nPossible files"), DeviceError),
    (FileNotFoundError(2, "No such file or directory"), DeviceError),
]


@pytest.mark.parametrize(("error", "meaning"), FAILURES, ids=lambda case: getattr(case, "__name__", str(case)[:40]))
@pytest.mark.parametrize("poisoned", [False, True])
def test_what_the_runtime_raises_is_memory_a_lost_gpu_or_a_failure(error, meaning, poisoned, monkeypatch):
    """A GPU is lost when even waiting for it fails."""

    def synchronize(place):
        if poisoned:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with pytest.raises(DeviceError) as caught, translated(CUDA):
        raise error
    assert type(caught.value) is (DeviceLostError if poisoned and meaning is DeviceError else meaning)
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    assert "/home" not in str(caught.value)


def test_a_bug_is_not_taken_for_a_failing_gpu():
    with pytest.raises(ZeroDivisionError), translated(CUDA):
        _ = 1 / 0


def test_settings_of_pytorch_are_put_back(monkeypatch):
    cudnn, conv, matmul = torch.backends.cudnn, torch.backends.cudnn.conv, torch.backends.cuda.matmul
    monkeypatch.setattr(cudnn, "benchmark", True)
    before = cudnn.benchmark, cudnn.deterministic, conv.fp32_precision, matmul.fp32_precision
    with reproducible():
        assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
        assert conv.fp32_precision == matmul.fp32_precision == "ieee"
    assert (cudnn.benchmark, cudnn.deterministic, conv.fp32_precision, matmul.fp32_precision) == before
