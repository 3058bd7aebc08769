"""What `score` tells with --verbose and --quiet, and what --log-json writes."""

from __future__ import annotations

import errno
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from melanoma_infer.cli.run_log import RunLog, run_log
from melanoma_infer.errors import EngineUnavailableError, PatientValueError, Stopped

SECRETS = ("CANARYfolder", "CANARYmask", "mucosal", "70_and_over", "71.5")


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def names(file: Path) -> list[str]:
    return [each["event"] for each in events(file)]


@pytest.fixture
def two(skin, tmp_path):
    """A folder with a slide and a letter."""
    folder = tmp_path / "CANARYfolder"
    folder.mkdir()
    (folder / "a.svs").write_bytes(skin.read_bytes())
    (folder / "b.svs").write_text("Dear colleague")
    return folder


def test_the_log_has_each_step_of_a_run_and_neither_paths_nor_patients(mminfer, two, tmp_path):
    log = tmp_path / "run.jsonl"
    argv = (
        "score",
        two,
        "--out",
        tmp_path / "CANARYfolder-out",
        "--log-json",
        log,
        "--age",
        "71.5",
        "--site",
        "mucosal",
    )
    assert mminfer(*argv).code == 3
    assert names(log) == ["run-started", "slides-found", "engine-loaded", "slide-scored", "slide-failed", "run-ended"]
    started, found, loaded, scored, failed, ended = events(log)
    assert {each["level"] for each in (started, found, loaded, scored, ended)} == {"info"}
    assert (found["slides"], loaded["engine"], loaded["skipped"]) == (2, "openvino", [])
    assert (scored["slide"], scored["tiles"], scored["timings_ms"]["infer"] > 0) == ("a", 1, True)
    assert (failed["level"], failed["slide"], failed["exit_code"]) == ("error", "b", 11)
    assert ended["exit_code"] == 3
    for each in events(log):
        assert each["time"].endswith("Z")
        assert datetime.fromisoformat(each["time"]).utcoffset() is not None
    assert not [secret for secret in SECRETS if secret in log.read_text()]
    assert mminfer(*argv).code == 3
    assert names(log)[6:] == [
        "run-started",
        "slides-found",
        "engine-loaded",
        "slide-skipped",
        "slide-failed",
        "run-ended",
    ]


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        (("--site", "CANARYsite"), 13, "PatientValueError"),
        (("--tissue", "/CANARYmask.png", "--tile-um", "-1"), 2, "UsageError"),
        (("--bundle", "/data/CANARYbundle"), 20, "BundleError"),
    ],
)
def test_a_run_that_does_not_start_is_in_the_log_without_what_was_typed(mminfer, tmp_path, options, code, error):
    log = tmp_path / "run.jsonl"
    assert mminfer("score", tmp_path / "a.svs", "--log-json", log, *options).code == code
    last = events(log)[-1]
    assert (last["event"], last["level"], last["exit_code"], last["error"]) == ("run-failed", "error", code, error)
    assert "CANARY" not in log.read_text()


@pytest.mark.parametrize(
    ("raised", "event", "facts"),
    [
        (EngineUnavailableError("No GPU."), "run-failed", {"exit_code": 21, "message": "No GPU."}),
        (PatientValueError("sex: 'x'"), "run-failed", {"exit_code": 13, "error": "PatientValueError"}),
        (KeyboardInterrupt(), "run-stopped", {"exit_code": 130, "level": "warning"}),
        (Stopped(143), "run-stopped", {"exit_code": 143}),
        (typer.Exit(3), "run-ended", {"exit_code": 3}),
        (ZeroDivisionError("/data/x.svs"), "run-failed", {"exit_code": 1, "level": "critical"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_however_a_run_ends_its_end_is_in_the_log(tmp_path, raised, event, facts):
    def run() -> None:
        with run_log(tmp_path / "log"):
            raise raised

    with pytest.raises(type(raised)):
        run()
    last = events(tmp_path / "log")[-1]
    assert (last["event"], {**last, **facts}) == (event, last)
    assert not {"sex", "data"} & set(re.findall(r"\w+", (tmp_path / "log").read_text()))


def test_a_log_that_cannot_be_opened_is_an_error_before_anything_is_scored(mminfer, skin, tmp_path):
    (tmp_path / "file").touch()
    ended = mminfer("score", skin, "--out", tmp_path / "r", "--log-json", tmp_path / "file" / "log")
    assert ended.code == 14
    assert "--log-json cannot be written" in ended.err
    assert not (tmp_path / "r").exists()


def test_a_log_may_be_in_the_output_folder_before_there_is_one(mminfer, skin, tmp_path):
    (tmp_path / "not-a-slide.svs").touch()
    mminfer(
        "score", tmp_path / "not-a-slide.svs", "--out", tmp_path / "r", "--log-json", tmp_path / "r" / "logs" / "log"
    )
    assert events(tmp_path / "r" / "logs" / "log")


def test_a_log_that_is_full_is_told_once_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    log = RunLog(tmp_path / "log")

    def full(_text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log._handler.stream, "write", full)
    log.event("one")
    log.event("two")
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--log-json cannot be written any more: there is no space left")


def test_quiet_prints_results_and_errors_only(mminfer, two, tmp_path):
    ended = mminfer("score", two, "--out", tmp_path / "r", "--quiet")
    assert ended.out.startswith("a: ")
    assert [line.partition(":")[0] for line in ended.err.splitlines()] == ["b", "1 of 2 slides failed"]


def test_verbose_names_versions_and_the_time_of_each_stage(mminfer, skin, tmp_path):
    plain = mminfer("score", skin, "--out", tmp_path / "plain")
    ended = mminfer("score", skin, "--out", tmp_path / "r", "-v")
    assert re.search(r"^mminfer \S+, python 3\.\S+, numpy ", ended.err, re.MULTILINE)
    assert re.search(r"^skin: 1 tile in \d+\.\d\d s \(open \d+\.\d\d s, .*infer \d+\.\d\d s", ended.err, re.MULTILINE)
    assert set(plain.err.splitlines()) < set(ended.err.splitlines())
    assert len(plain.out.splitlines()) == len(ended.out.splitlines())


def test_quiet_and_verbose_contradict_each_other_and_neither_outlives_its_command(mminfer, skin, tmp_path):
    assert mminfer("score", skin, "--out", tmp_path / "r", "-q", "-v").code == 2
    assert mminfer("score", skin, "--out", tmp_path / "r", "-q").err == ""
    assert "openvino" in mminfer("score", skin, "--out", tmp_path / "r").err
