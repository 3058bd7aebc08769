"""`mminfer watch` as it runs: the real engine, real slides, real processes and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kept_for_tests import kept, run_records, summary_rows
from slides_for_tests import solid, write_svs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a killed process is known to be dead on Linux alone")

MAIN = "import sys; sys.argv[0] = 'mminfer'; from melanoma_infer.cli.app import main; main()"
STABLE = ("--stable-for", "1.5", "--tile-um", "256", "--threads", "1")
SLOW = ("--stable-for", "0.3", "--tile-um", "64", "--threads", "1")
"""So many tiles that a slide takes several seconds."""
LIMIT_S = 120.0


def started(*argv):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-c", MAIN, "watch", *map(str, argv)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(happened, process):
    """Wait until something has happened; fail if the process ends before."""
    until = time.monotonic() + LIMIT_S
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def events(log: Path):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def names(log: Path):
    return [event["event"] for event in events(log)]


def records(out: Path, of: str):
    return sorted(path.stem.rpartition("-")[0] for path in (out / "watch" / of).glob("*.json"))


@pytest.fixture
def place(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in", tmp_path / "out", tmp_path / "log"


def test_a_slide_that_is_copied_slowly_gives_what_score_gives(cmu, place, tmp_path, mminfer):
    folder, out, log = place
    watcher = started(folder, "--out", out, *STABLE, "--json", "--log-json", log)
    wait_for(lambda: "engine-loaded" in names(log), watcher)
    content = cmu.read_bytes()
    size = len(content) // 6 + 1
    with (folder / "slow.svs").open("wb") as file:
        for start in range(0, len(content), size):
            file.write(content[start : start + size])
            file.flush()
            written_at = datetime.now(UTC)
            time.sleep(0.5)  # less than --stable-for
    wait_for(lambda: records(out, "done") == ["slow"], watcher)
    assert (folder / "slow.svs").read_bytes() == content
    status = json.loads((out / "watch" / "status.json").read_text())
    assert len(status["watchers"]) == 1
    # Another one for the same, loaded engine.
    write_svs(folder / "plain.svs", solid(600, 600, (180, 90, 140)))
    wait_for(lambda: records(out, "done") == ["plain", "slow"], watcher)
    code, told, err = stop(watcher)
    assert (code, err.splitlines()[-1].startswith("mminfer: stopped: no slide is lost")) == (143, True), err
    slow, plain, stopped = (json.loads(line) for line in told.splitlines())
    assert (slow["id"], plain["id"], stopped["exit_code"]) == ("slow", "plain", 143)
    assert names(log) == [
        "run-started", "engine-loaded", "slide-arrived", "slide-scored", "slide-arrived", "slide-scored", "run-stopped"
    ]  # fmt: skip
    (arrived,) = (event for event in events(log) if event["event"] == "slide-arrived" and event["slide"] == "slow")
    assert datetime.fromisoformat(arrived["time"]) - written_at >= timedelta(seconds=1.5 - 0.1)
    assert [row["exit_code"] for row in summary_rows(out)] == ["0", "0"]
    assert [(run["state"], len(run["slides"])) for run in run_records(out)] == [("finished", 1)] * 2
    (tmp_path / "slow.svs").write_bytes(content)
    assert mminfer("score", tmp_path / "slow.svs", "--out", tmp_path / "scored", *STABLE[2:]).code == 0
    same = {name: files for name, files in kept(out).items() if name.startswith("slow")}
    assert same == kept(tmp_path / "scored")


def test_a_watcher_that_is_killed_in_a_slide_is_followed_by_one_that_scores_it(cmu, place):
    folder, out, log = place
    shutil.copy(cmu, folder / "a.svs")
    first = started(folder, "--out", out, *SLOW, "--log-json", log)
    wait_for(lambda: "slide-arrived" in names(log), first)
    time.sleep(0.5)
    code, _, _ = stop(first, signal.SIGKILL)
    assert (code, records(out, "done"), records(out, "attempts")) == (-signal.SIGKILL, [], ["a"])
    assert len(list((out / "watch" / "leases").glob("[!.]*"))) == 1
    second = started(folder, "--out", out, *SLOW, "--once", "--log-json", log.with_name("log2"))
    _, err = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 0, err
    assert "a: taken over from the watcher" in err
    assert "lease-taken-over" in names(log.with_name("log2"))
    assert (records(out, "done"), records(out, "attempts")) == (["a"], [])
    (record,) = (out / "watch" / "done").iterdir()
    assert json.loads(record.read_text())["attempts"] == 2
    assert [list((out / "watch" / name).iterdir()) for name in ("leases", "watchers")] == [[], []]
    assert len(list(out.glob("*/result.json"))) == 1
    assert [row["exit_code"] for row in summary_rows(out)] == ["0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_at_once_in_the_middle_of_a_slide_and_gives_it_back(cmu, place, number):
    folder, out, log = place
    shutil.copy(cmu, folder / "a.svs")
    watcher = started(folder, "--out", out, *SLOW, "--log-json", log)
    wait_for(lambda: "slide-arrived" in names(log), watcher)
    time.sleep(0.5)
    code, _, err = stop(watcher, number)
    assert code == 128 + number, err
    assert "Traceback" not in err
    assert [records(out, of) for of in ("done", "failed", "attempts")] == [[], [], []]
    assert list((out / "watch" / "leases").iterdir()) == []
    assert json.loads((out / "watch" / "status.json").read_text())["watchers"] == []


def test_two_watchers_share_the_slides(skin, place):
    folder, out, log = place
    for name in "abcdef":
        shutil.copy(skin, folder / f"{name}.svs")
    both = [
        started(folder, "--out", out, *STABLE, "--once", "--log-json", log.with_name(f"log{number}"))
        for number in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
    told = [event for number in range(2) for event in events(log.with_name(f"log{number}"))]
    assert sorted(event["slide"] for event in told if event["event"] == "slide-scored") == list("abcdef")
    assert records(out, "done") == list("abcdef")


CRASHES = """
import ctypes
from melanoma_infer.pipeline import request
whole = request.open_slide
def open_slide(path):
    if path.name.startswith("crashes"): ctypes.string_at(0)
    return whole(path)
request.open_slide = open_slide
"""


def test_a_slide_that_crashes_a_library_has_failed_and_the_watch_goes_on(skin, place, monkeypatch):
    folder, out, log = place
    for name in ("a", "crashes", "z"):
        shutil.copy(skin, folder / f"{name}.svs")
    monkeypatch.setitem(globals(), "MAIN", CRASHES + MAIN)
    watcher = started(folder, "--out", out, *STABLE, "--once", "--log-json", log)
    _, err = watcher.communicate(timeout=LIMIT_S)
    assert watcher.returncode == 3, err
    assert (records(out, "done"), records(out, "failed")) == (["a", "z"], ["crashes"])
    assert [event["exit_code"] for event in events(log) if event["event"] == "slide-failed"] == [176]


def test_a_cut_slide_and_a_letter_fail_and_say_why(skin, place, mminfer):
    folder, out, _ = place
    (folder / "cut.svs").write_bytes(skin.read_bytes()[:-2000])
    (folder / "letter.svs").write_text("Dear colleague")
    shutil.copy(skin, folder / "good.svs")
    ended = mminfer("watch", folder, "--out", out, *STABLE, "--once")
    assert ended.code == 3
    assert (records(out, "done"), records(out, "failed")) == (["good"], ["cut", "letter"])
    failed = [json.loads(file.read_text()) for file in (out / "watch" / "failed").iterdir()]
    assert {record["slide"]: record["exit_code"] for record in failed} == {"cut": 10, "letter": 11}
    assert mminfer("watch", folder, "--out", out, *STABLE, "--once").code == 0


def test_the_same_bytes_twice_are_told_in_the_result(skin, place, mminfer):
    folder, out, _ = place
    for name in ("one", "two"):
        shutil.copy(skin, folder / f"{name}.svs")
    assert mminfer("watch", folder, "--out", out, *STABLE, "--once").code == 0
    for result in out.glob("*/result.json"):
        assert any("the same bytes" in text for text in json.loads(result.read_text())["warnings"])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("nowhere", "--out", "out"), "There is no folder FOLDER to watch"),
        (("in", "--out", "in/out"), "--out is in the watched folder"),
        (("in", "--out", "in"), "--out is in the watched folder"),
        (("in", "--out", "out", "--tissue", "nothing.png"), "--tissue: there is no such file"),
    ],
)
def test_what_cannot_be_watched_is_refused(place, tmp_path, monkeypatch, mminfer, argv, says):
    monkeypatch.chdir(tmp_path)
    ended = mminfer("watch", *argv, "--once")
    assert (ended.code, says in ended.err) == (2, True), ended.err
