"""A child process: what it is given, and how its end is told."""

from __future__ import annotations

import signal
import sys

import pytest

from melanoma_infer.runtime.child import ChildFailure, run_child


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A module `small_child` with this source."""

    def make(source: str) -> str:
        (tmp_path / "small_child.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        return "small_child"

    return make


def test_a_child_that_succeeds_has_no_failure(child, tmp_path):
    module = child("import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])")
    assert run_child(module, tmp_path / "answer", "done", seconds=60) is None
    assert (tmp_path / "answer").read_text() == "done"


@pytest.mark.parametrize(
    ("source", "failure"),
    [
        ("import sys; sys.exit('there are no weights')", ChildFailure("exit 1", "there are no weights")),
        ("import os; os._exit(7)", ChildFailure("exit 7")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", ChildFailure(signal.SIGFPE.name)),
        ("raise ValueError('/home/somebody/model.pt has 3 rows.')", ChildFailure("exit 1", "ValueError: has 3 rows")),
        ("import warnings; warnings.warn('old'); 1 / 0", ChildFailure("exit 1", "ZeroDivisionError: division by zero")),
    ],
)
def test_a_failure_tells_the_ending_and_the_error_without_paths(child, source, failure):
    assert run_child(child(source), seconds=60) == failure


def test_a_child_that_hangs_is_stopped(child):
    assert run_child(child("import time; time.sleep(60)"), seconds=0.2) == ChildFailure("stopped after 0.2 s")


def test_a_child_imports_nothing_from_the_current_folder(child, tmp_path, monkeypatch):
    module = child("import colorsys; colorsys.hls_to_rgb")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "colorsys.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert run_child(module, seconds=60) is None


def test_a_child_does_not_inherit_what_makes_pytorch_unpickle_code(child, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert run_child(child("import os; assert not [n for n in os.environ if 'FORCE' in n]"), seconds=60) is None
