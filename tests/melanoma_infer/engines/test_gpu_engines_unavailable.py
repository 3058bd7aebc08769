"""Machines on which a GPU engine cannot run, or must not: each says why and what to use instead."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from packaging.requirements import Requirement

from melanoma_infer.engines import device as device_module
from melanoma_infer.engines import load_engine, parity_table, tensorrt_engine
from melanoma_infer.engines.tensorrt_api import import_api
from melanoma_infer.errors import BundleError, EngineUnavailableError

ROOT = Path(__file__).parents[3]
NAMES = ("tensorrt-rtx", "tensorrt")


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


def test_an_nvidia_driver_makes_auto_try_tensorrt_first(monkeypatch):
    from melanoma_infer import engines

    monkeypatch.setattr(device_module, "DRIVER_FILES", ())
    assert engines.candidates()[0] == "openvino"
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    assert engines.candidates()[:4] == ["tensorrt", "tensorrt-rtx", "triton", "openvino"]
    assert sorted(engines.candidates()) == sorted(engines.MODULES)


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

    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    if runtime.cudaGetDeviceCount()[0] == 0:
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineUnavailableError, match="CUDA finds no GPU here"):
        find_gpu(runtime, None)


def test_a_driver_too_old_for_cuda_13_says_what_to_install(new_machine, bundle):
    machine = new_machine("tensorrt", driver_is_old=True)
    with pytest.raises(EngineUnavailableError, match=r"from 580 on.*pip install 'mminfer\[tensorrt-cu12\]'"):
        machine.load(bundle)


def test_the_extra_for_cuda_12_takes_nothing_of_cuda_13():
    """An environment that a driver from 525 on runs; the two extras are the same library for two versions of CUDA."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {
        Requirement(each).name: Requirement(each).specifier
        for each in project["optional-dependencies"]["tensorrt-cu12"]
    }
    assert set(extra) == {"tensorrt-cu12", "cuda-bindings"}
    assert "12.9.1" in extra["cuda-bindings"]
    assert "13.0.0" not in extra["cuda-bindings"]
    assert "tensorrt-cu12" in parity_table.RUNTIMES["tensorrt"]


@pytest.mark.parametrize(
    ("platform", "file"), [("win32", "System32/nvcuda.dll"), ("linux", "dev/nvidiactl"), ("linux", "dev/dxg")]
)
def test_a_driver_is_found_on_windows_and_on_linux(monkeypatch, tmp_path, platform, file):
    """Windows has no device files; its driver brings nvcuda.dll."""
    monkeypatch.setattr(device_module, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(device_module, "DRIVER_FILES", device_module.driver_files(platform, tmp_path))
    assert not device_module.nvidia_driver_is_loaded()
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_bytes(b"")
    assert device_module.nvidia_driver_is_loaded()


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
        buckets=(1,),
        tiles_at_once=1,
        infer_each=lambda tiles: [{"probabilities": row[None]} for row, _ in zip(wrong, tiles, strict=True)],
    )
    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setattr(tensorrt_engine, "load", lambda *_, **__: stub)
    choice = load_engine(bundle)
    assert choice.engine.numerics.engine == "openvino"
    assert any("tensorrt: fp32 differs from the golden probabilities" in why for why in choice.skipped)


def test_auto_skips_a_library_that_would_change_the_graph(bundle, monkeypatch):
    """Its parser or builder replaced a type or a value; other engines take the graph as it is."""

    def load(*_, **__):
        raise BundleError("TensorRT replaced a type or value of this graph.")

    monkeypatch.setattr(device_module, "DRIVER_FILES", (Path(__file__),))
    monkeypatch.setattr(tensorrt_engine, "load", load)
    choice = load_engine(bundle)
    assert choice.engine.numerics.engine == "openvino"
    assert choice.skipped[0] == "tensorrt: TensorRT replaced a type or value of this graph."
    with pytest.raises(BundleError):
        load_engine(bundle, "tensorrt")
