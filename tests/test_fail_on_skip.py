"""`--fail-on-skip`: on a machine that can run every test, a test that did not run is not a success."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

def test_that_runs(): pass

@pytest.fixture
def missing(): pytest.skip("no library")

def test_that_is_skipped(missing): pass

def test_that_cannot_run(): pytest.xfail("no code for this GPU")
"""


def run(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        "--fail-on-skip",
        tmp_path,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)


def test_a_skip_is_a_failure_and_an_expected_failure_is_none(tmp_path):
    ran = run(tmp_path)
    assert "1 passed, 1 xfailed, 1 error" in ran.stdout
    assert "test_that_is_skipped was skipped: no library" in ran.stdout
    assert ran.returncode == 1


def test_gpu_check_installs_tensorrt_and_fails_where_nothing_runs():
    """As the Makefile has it: without TensorRT, or without a GPU, the run is not green."""
    no_gpu, install, pycuda, parts = recipe("gpu-check")
    assert no_gpu.endswith("exit 1)")
    assert "pip install" in install
    assert "[$(TENSORRT)]" in install
    assert "pycuda" in pycuda
    assert parts == "$(call every,gpu-tests gpu-sanitizer gpu-rates)"
    assert recipe("gpu-tests")[0].endswith("pytest -m gpu --fail-on-skip")
    assert "compute-sanitizer --error-exitcode 1" in recipe("gpu-sanitizer")[0]
    assert "benchmarks/gpu_rates.py" in recipe("gpu-rates")[-1]


def recipe(target: str) -> list[str]:
    """The commands of a target."""
    text = (Path(__file__).parents[1] / "Makefile").read_text().partition(f"\n{target}:")[2].partition("\n\n")[0]
    return [line.strip() for line in text.replace("\\\n", "").split("\n")[1:]]
