"""A native library that crashes on a slide costs that slide. Every crash here is a real one."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from kept_for_tests import run_records

from melanoma_infer.engines.base import Numerics
from melanoma_infer.pipeline import batch as batch_module
from melanoma_infer.pipeline.request import RunOptions
from melanoma_infer.pipeline.worker import Computing

CRASHING = """
import ctypes, os, sys
from pathlib import Path
from melanoma_infer.pipeline import request
whole = request.open_slide
def open_slide(path):
    if path.name.startswith("crashes"): ctypes.string_at(0)
    if path.name.startswith("once") and not Path("crashed").exists():
        Path("crashed").touch()
        os.abort()
    return whole(path)
request.open_slide = open_slide
sys.argv[0] = "mminfer"
from melanoma_infer.cli.app import main
main()
"""
ENGINE_CRASHES = """
import os, sys
from melanoma_infer.pipeline import scorer
scorer.load_engine = lambda *_, **__: os.abort()
sys.argv[0] = "mminfer"
from melanoma_infer.cli.app import main
main()
"""


def started(code, folder, *argv):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def place(cmu, tmp_path):
    """A function that puts copies of a slide into a folder under these names."""

    def fill(*names):
        (tmp_path / "in").mkdir()
        for name in names:
            shutil.copy(cmu, tmp_path / "in" / f"{name}.svs")
        return tmp_path

    return fill


BUILDING = """
import sys
from melanoma_infer.pipeline import scorer
whole = scorer.load_engine
def load_engine(*given, tell, **options):
    tell("building an engine: this takes minutes")
    choice = whole(*given, **options)
    choice.engine.remarks = ("no CUDA graph for batches of 8",)
    return choice
scorer.load_engine = load_engine
sys.argv[0] = "mminfer"
from melanoma_infer.cli.app import main
main()
"""

SCORE = ("score", "in", "--out", "out", "--tile-um", "1024", "--threads", "1")


def test_the_slide_that_crashes_is_named_and_every_other_is_scored(place):
    folder = place("a", "crashes", "d")
    run = started(CRASHING, folder, *SCORE)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 3, err
    assert "crashes: failed at 'in the worker' (exit 176): A library crashed on this slide (SIGSEGV)" in err
    assert "Traceback" not in err
    rows = list(csv.DictReader((folder / "out" / "summary.csv").read_text().splitlines()))
    assert [(row["id"], row["exit_code"]) for row in rows] == [("a", "0"), ("crashes", "176"), ("d", "0")]
    assert [run["state"] for run in run_records(folder / "out")] == ["finished"]
    assert len(list((folder / "out").glob("*/result.json"))) == 2
    assert [line.split(":")[0] for line in out.splitlines() if not line.startswith(" ")] == ["a", "d"]


NUMBERED = CRASHING.replace(
    "from melanoma_infer.cli.app import main",
    """
import contextlib
from melanoma_infer.cli import running
@contextlib.contextmanager
def shown(slides):
    yield lambda step: print("STEP", step.slide, slides, step.doing, step.tiles_done, file=sys.stderr)
running.shown_progress = shown
from melanoma_infer.cli.app import main""",
)


def test_slides_keep_their_numbers_in_the_workers_after_a_crash(place):
    run = started(NUMBERED, place("a", "crashes", "d"), *SCORE)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 3, err
    steps = [line.split()[1:] for line in err.splitlines() if line.startswith("STEP")]
    assert {total for _, total, *_ in steps} == {"3"}
    written = [slide for slide, _, doing, _ in steps if doing == "write"]
    assert written[-1] == "3"
    assert set(written) == {"1", "3"}


@pytest.mark.slow
def test_a_single_slide_that_crashes_ends_with_its_own_code(place):
    run = started(CRASHING, place("crashes"), *SCORE)
    assert "(exit 176)" in run.communicate(timeout=300)[1]
    assert run.returncode == 176


@pytest.mark.slow
def test_a_slide_that_crashes_once_is_scored_in_the_next_worker(place):
    folder = place("once", "z")
    run = started(CRASHING, folder, *SCORE)
    _, err = run.communicate(timeout=300)
    assert (run.returncode, (folder / "crashed").exists()) == (0, True), err
    assert len(list((folder / "out").glob("*/result.json"))) == 2


def test_an_engine_that_crashes_when_it_is_loaded_is_an_engine_that_is_not_available(place):
    run = started(ENGINE_CRASHES, place("a"), *SCORE)
    assert "The engine crashed when it was loaded (SIGABRT)" in run.communicate(timeout=300)[1]
    assert run.returncode == 21


def workers_of(process_id):
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="a batch has a worker process on Linux alone")
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_run(place, ended_by):
    run = started(CRASHING, place("a", "b"), *SCORE)
    while not (found := workers_of(run.pid)):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(ended_by)
    run.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(alive(worker) for worker in found):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_build_is_told_before_the_engine_is_loaded_and_its_remarks_once(place, quiet):
    folder = place("a", "b")
    run = started(BUILDING, folder, *SCORE, "--engine", "openvino", *(["--quiet"] if quiet else []))
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    told = [line for line in err.splitlines() if "building" in line or "openvino" in line]
    if quiet:
        assert told == []
    else:
        building, numerics, remark = told
        assert building == "building an engine: this takes minutes"
        assert " on openvino " in numerics
        assert remark == "openvino: no CUDA graph for batches of 8"
    assert [run["remarks"] for run in run_records(folder / "out")] == [["no CUDA graph for batches of 8"]]


@pytest.mark.parametrize("loaded", [frozenset(), frozenset({"sys"})], ids=["worker", "this process"])
def test_a_batch_tells_in_this_process_what_its_scorer_computes_with(tmp_path, monkeypatch, loaded):
    numerics, told = Numerics("openvino", "1", "fp32", "CPU"), []
    scorer = SimpleNamespace(numerics=numerics, skipped=("triton: no driver",), remarks=("slow",))
    monkeypatch.setattr(batch_module, "RUNTIMES", loaded)

    def load(*, tell):
        tell("minutes")
        return scorer

    batch = batch_module.score_batch(load, tmp_path, RunOptions(), tell=told.append)
    with closing(batch):
        batch.load()
    assert told == ["minutes"]
    assert batch.computing == Computing(numerics, ("triton: no driver",), ("slow",))
