"""TensorRT and TensorRT-RTX on a real GPU, in every precision: not run yet.

Only a library without code for this GPU is an expected failure. A library that is missing or an engine that does not
load fails, because these tests would otherwise be green on a GPU that computed nothing.
"""

from __future__ import annotations

import itertools
import platform
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.bundle.half import to_half
from melanoma_infer.engines.cuda import find_gpu, import_cuda
from melanoma_infer.engines.golden import check_golden
from melanoma_infer.engines.tensorrt_api import MODULES, TITLES
from melanoma_infer.engines.tensorrt_engine import TensorRTEngine, load_with
from melanoma_infer.tolerances import Precision
from mminfer_export import to_tensorrt

pytestmark = pytest.mark.gpu
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def demo() -> Bundle:
    """The demo bundle with an fp16 graph."""
    opened = open_bundle("demo")
    return replace(opened, graphs={**opened.graphs, "fp16": to_half(opened.graphs["fp32"])})


@pytest.fixture(scope="module", params=itertools.product(MODULES, PRECISIONS), ids="-".join)
def engine(request, demo, tmp_path_factory) -> TensorRTEngine:
    name, precision = request.param
    if name == "tensorrt-rtx" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.xfail(f"{TITLES[name]} does not exist for {platform.machine()}")
    library, gpu = import_module(MODULES[name]), find_gpu(import_cuda(), None)
    if name == "tensorrt-rtx" and not hasattr(library.ComputeCapability, gpu.target.upper()):
        pytest.xfail(f"{TITLES[name]} {library.__version__} has no code for {gpu.name} ({gpu.target})")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_with(name, demo, precision, None, engine_file=None)


def test_golden_outputs_within_the_tolerance_in_every_batch_size(engine, demo):
    excess = check_golden(demo, engine, host=True).excess(demo.card.tolerance_of(engine.numerics.precision))
    assert excess is None
    assert engine.remarks == ()


def test_many_batches_in_flight_give_the_bits_of_one_at_a_time(engine):
    largest = engine.buckets[-1]
    tiles = np.random.default_rng(1).integers(0, 256, (2 * largest + 3, 512, 512, 3), dtype=np.uint8)
    together = engine.infer(tiles)
    for rows in (slice(0, largest), slice(largest, 2 * largest), slice(2 * largest, None)):
        alone = engine.infer(tiles[rows])
        assert all(np.array_equal(together[name][rows], alone[name]) for name in together)


def test_a_pytorch_tensor_on_the_gpu_gives_the_same_bits_while_it_is_still_written(engine, demo):
    import torch

    expected = engine.infer(demo.golden.tiles)
    source = torch.from_numpy(demo.golden.tiles).cuda()
    for reduced in (None, OnlyDlpack, OnlyCudaArray):
        with torch.cuda.stream(torch.cuda.Stream()):
            given = torch.zeros_like(source)
            torch.cuda._sleep(50_000_000)  # cycles: the copy is queued behind it
            given.copy_(source)
            outputs = engine.infer(given if reduced is None else reduced(given))
        assert all(np.array_equal(outputs[name], expected[name]) for name in expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_engine_with_plugins_gives_the_golden_outputs_in_every_batch_size(demo, monkeypatch, tmp_path, precision):
    monkeypatch.setenv("MMINFER_CACHE", str(tmp_path / "cache"))
    path, _ = to_tensorrt.build_engine(demo, precision, tmp_path / "plugins.engine", plugins=True)
    engine = load_with("tensorrt", demo, precision, None, path)
    assert check_golden(demo, engine, host=True).excess(demo.card.tolerance_of(precision)) is None
    assert engine.remarks == ()


class OnlyDlpack:
    """A tensor reduced to its DLPack methods."""

    def __init__(self, tensor: Any) -> None:
        self.__dlpack_device__ = tensor.__dlpack_device__
        self.__dlpack__ = tensor.__dlpack__


class OnlyCudaArray:
    """A tensor reduced to its `__cuda_array_interface__`."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__
