"""Many runs of the command line into one output folder: what one of them has reported, no other takes away."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bundles_for_tests import colour_rule_card, make_bundle
from kept_for_tests import run_records, summary_rows
from slides_for_tests import noise, write_svs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals and limits"),
]
SLIDES = ("first", "second", "third")
MAIN = "import sys; sys.argv[0] = 'mminfer'; from melanoma_infer.cli.app import main; main()"
SLOW_TILES = f"""
import time
from melanoma_infer.tiles.reading import TileStream
each = TileStream.__iter__
def slow(self):
    for tile in each(self):
        time.sleep(0.05); yield tile
TileStream.__iter__ = slow
{MAIN}
"""
FULL_AFTER_BYTES = 20_000


@dataclass
class Runs:
    """Runs of the command line in one folder of slides, and what they have reported."""

    folder: Path
    reported: dict[Path, dict[str, bytes]] = field(default_factory=dict)
    failures: int = 0
    ends: list[dict[str, Any]] = field(default_factory=list)
    """What the last run said of itself, besides its slides."""

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, *argv: str, code: str = MAIN, full: bool = False) -> subprocess.Popen[str]:
        """Start `mminfer score`; no file of a run on a full disk gets longer than a few kB."""
        command = [sys.executable, "-c", code, "score", *argv, "--out", "out", "--json", "--tissue", "all"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            preexec_fn=_with_little_space if full else None,
        )

    def end(self, run: subprocess.Popen[str]) -> list[dict[str, Any]]:
        """Wait for a run, and keep what it has reported; nothing that was reported before has changed."""
        said, told = run.communicate(timeout=300)
        assert "Traceback" not in told, told
        said_json = [json.loads(line) for line in said.splitlines()]
        lines = [line for line in said_json if "id" in line]
        self.ends = [line for line in said_json if "id" not in line]
        self.failures += sum(line["exit_code"] != 0 for line in lines)
        for folder in (self.folder / line["folder"] for line in lines if line["exit_code"] == 0):
            self.reported.setdefault(folder, _content(folder))
        self.check()
        return lines

    def score(self, *argv: str, code: int = 0, full: bool = False) -> list[dict[str, Any]]:
        """A run from start to end."""
        run = self.start(*argv, full=full)
        lines = self.end(run)
        assert run.returncode == code
        return lines

    def check(self) -> None:
        """All that was ever reported is there as it was, and has a row of its own that tells it from the others."""
        there = [_content(folder) for folder in _result_folders(self.out)]
        assert all(content in there for content in self.reported.values())
        rows = [row for row in summary_rows(self.out) if row["exit_code"] == "0"]
        by_folder = {row["folder"]: row for row in rows}
        assert {folder.name for folder in self.reported} <= set(by_folder)
        told = {(row["id"], row["digest"], row["bundle"], row["settings"]) for row in by_folder.values()}
        assert len(told) == len(by_folder)


def _result_folders(out: Path) -> Iterator[Path]:
    for path in (*out.glob("[!.]*/result.json"), *out.glob("replaced/*/result.json")):
        yield path.parent


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _with_little_space() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AFTER_BYTES, FULL_AFTER_BYTES))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    make_bundle(tmp_path / "one.mminfer")
    make_bundle(tmp_path / "two.mminfer", colour_rule_card(name="another rule"))
    for seed, name in enumerate(SLIDES):
        write_svs(tmp_path / f"{name}.svs", noise(1024, 1024, seed) // 2)
    return Runs(tmp_path)


def test_every_result_that_a_run_reported_is_there_after_all_others(runs):
    one, two = ("--bundle", "one.mminfer"), ("--bundle", "two.mminfer")
    runs.score("first.svs", *one)
    runs.score("first.svs", *two)
    runs.score("first.svs", *two, "--aggregate", "max")
    runs.score("first.svs", *two, "--tile-um", "128")
    assert len(runs.reported) == 4

    runs.score("first.svs", "second.svs", *one, "--hide-names")
    assert len(runs.reported) == 6

    both = [runs.start("first.svs", "second.svs", *two) for _ in range(2)]
    reported = [[line["folder"] for line in runs.end(run)] for run in both]
    assert reported[0] == reported[1]
    assert len(runs.reported) == 7

    stopped = runs.start(*(f"{name}.svs" for name in SLIDES), *one, "--tile-um", "64", code=SLOW_TILES)
    assert stopped.stdout is not None
    first = json.loads(stopped.stdout.readline())
    runs.reported[runs.folder / first["folder"]] = _content(runs.folder / first["folder"])
    stopped.send_signal(signal.SIGINT)
    runs.end(stopped)
    assert stopped.returncode == 130
    assert [end["exit_code"] for end in runs.ends] == [130]
    assert run_records(runs.out)[-1]["state"] == "interrupted"
    again = runs.score(*(f"{name}.svs" for name in SLIDES), *one, "--tile-um", "64")
    assert again[0]["skipped"]
    assert len(runs.reported) == 10

    full = runs.score("third.svs", *two, full=True, code=14)
    assert "The output folder (--out) cannot be written" in full[0]["message"]
    runs.score("third.svs", *two)
    assert len(runs.reported) == 11

    runs.score("first.svs", *one, "--overwrite")
    assert len(list((runs.out / "replaced").iterdir())) == 1
    assert sum(row["exit_code"] != "0" for row in summary_rows(runs.out)) == runs.failures
