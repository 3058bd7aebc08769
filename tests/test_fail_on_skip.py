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


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", *options, tmp_path]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)


def test_a_skip_is_a_failure_and_an_expected_failure_is_none(tmp_path):
    ran = run(tmp_path, "--fail-on-skip")
    assert "1 passed, 1 xfailed, 1 error" in ran.stdout
    assert "test_that_is_skipped was skipped: no library" in ran.stdout
    assert ran.returncode == 1


def test_without_it_a_skip_is_a_skip(tmp_path):
    ran = run(tmp_path)
    assert "1 passed, 1 skipped, 1 xfailed" in ran.stdout
    assert ran.returncode == 0
