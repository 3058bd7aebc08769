"""The example of GPU frames, on a drawn GPU with a drawn PyCUDA, and on a real one."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fake_cuda_for_tests import FakeCuda
from fake_driver_for_tests import FakeDriver, drawn_pycuda

from melanoma_infer.engines import cuda_driver

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pycuda_frames.py"


def example(monkeypatch, modules: dict[str, ModuleType]):
    """What the example returns with these modules of PyCUDA."""
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(EXAMPLE))["main"]()


def test_frames_that_a_kernel_still_computes_give_the_score_of_host_frames(monkeypatch, capsys):
    """On a drawn GPU, whose work is done only when something waits for it."""
    driver = FakeDriver(FakeCuda())
    monkeypatch.setattr(cuda_driver, "load_driver", lambda: driver)
    modules = drawn_pycuda(driver)
    context = driver.gpu.context
    from_gpu = example(monkeypatch, modules)
    assert driver.gpu.context == context
    assert capsys.readouterr().out.startswith("frames on a drawn GPU")
    modules["pycuda.gpuarray"].to_gpu = np.asarray
    from_host = example(monkeypatch, modules)
    assert from_gpu.tiles_counted.ok == from_host.tiles_counted.ok > 10
    assert from_gpu.malignant_score == from_host.malignant_score


@pytest.mark.gpu
def test_real_frames_of_pycuda_give_the_score_of_host_frames(monkeypatch):
    reason = "PyCUDA does not build without CUDA's compiler and headers: pip install 'mminfer[pycuda]'"
    try:
        import pycuda.autoinit
        from pycuda import gpuarray
    except ImportError:
        pytest.xfail(reason)
    modules = {"pycuda": pycuda, "pycuda.autoinit": pycuda.autoinit, "pycuda.gpuarray": gpuarray}
    from_gpu = example(monkeypatch, modules)
    monkeypatch.setattr(gpuarray, "to_gpu", np.asarray)
    assert from_gpu.malignant_score == example(monkeypatch, modules).malignant_score
