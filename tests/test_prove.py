"""Slow proofs: what must hold however a run is cut off and however a slide is damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys

import pytest
from bundles_for_tests import colour_rule_card, make_bundle
from kept_for_tests import kept

from melanoma_infer.reports.writing import REPORTS

pytestmark = pytest.mark.slow

KILLS = 25
COMMAND = "import sys; sys.argv[0] = 'mminfer'; from melanoma_infer.cli.app import main; main()"


def mminfer(*argv: object) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, argv)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def numbers(row: str) -> list[str]:
    """A row's place and outputs. Its tissue fraction may follow the mask, whose threshold and holes damage can move."""
    cells = row.split(",")
    return [*cells[:-2], cells[-1]]


def test_killed_at_any_moment_and_run_again_gives_the_same_files(cmu, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        shutil.copy2(cmu, tmp_path / "in" / f"{name}.svs")
    argv = ("score", tmp_path / "in", "--tile-um", 256, "--out")
    assert mminfer(*argv, tmp_path / "whole").wait() == 0
    whole = kept(tmp_path / "whole")
    assert [len(files) for files in whole.values()] == 3 * [len(REPORTS) - 1]  # all but the report, which shows times
    luck = random.Random(7)
    killed = 0
    for attempt in range(KILLS):
        out = tmp_path / f"out{attempt}"
        run = mminfer(*argv, out)
        try:
            run.wait(luck.uniform(0.3, 3.5))
        except subprocess.TimeoutExpired:
            run.kill()
            killed += 1
        run.wait()
        for name, files in kept(out).items():
            # What is there is whole, whenever the kill came.
            assert files == whole[name]
        assert mminfer(*argv, out).wait() == 0
        assert kept(out) == whole
        shutil.rmtree(out)
    assert killed >= KILLS // 3  # else the proof proved nothing: the machine was faster than the kills


def test_no_damage_to_a_slide_gives_a_clean_result_that_differs(cmu, tmp_path):
    """Cut short, zeroed, or with flipped bits: the same numbers, an error, or tiles that are marked unreadable.

    Flipped bits inside a JPEG stream may decode without complaint to other pixels, which no reader of the format can
    tell; they are left out here, and so is what lies in the label and macro images, which are never opened.
    """
    threshold = {"value": 0.5, "low": 0.5, "high": 0.5, "how": "set by hand"}
    bundle = make_bundle(tmp_path / "colour.mminfer", colour_rule_card(threshold=threshold))
    whole = cmu.read_bytes()
    argv = ("--bundle", bundle, "--out")
    assert mminfer("score", cmu, *argv, tmp_path / "whole").wait() == 0
    (tiles,) = (tmp_path / "whole").glob("*/tiles.csv")
    rows = tiles.read_text().splitlines()
    luck = random.Random(11)
    (tmp_path / "damaged").mkdir()
    for step in range(1, 20):
        (tmp_path / "damaged" / f"cut{step}.svs").write_bytes(whole[: len(whole) * step // 20])
    for step in range(24):
        content = bytearray(whole)
        start = luck.randrange(16, len(whole) - 4096)
        content[start : start + luck.choice([512, 4096])] = bytes(luck.choice([512, 4096]))
        (tmp_path / "damaged" / f"zero{step}.svs").write_bytes(content[: len(whole)])
    assert mminfer("score", tmp_path / "damaged", *argv, tmp_path / "out").wait() in (0, 3)
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")]
    assert not [result["id"] for result in results if result["id"].startswith("threshold")]
    told = 0
    for result in results:
        folder = tmp_path / "out" / result["run"]["folder"]
        read = (folder / "tiles.csv").read_text().splitlines()
        told += bool(result["tiles"]["unreadable"])
        assert read == rows or result["tiles"]["unreadable"] > 0, result["id"]
        for row, intact in zip(read, rows, strict=True):
            assert ",unreadable," in row or numbers(row) == numbers(intact)
    assert told > 5
