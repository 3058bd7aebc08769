"""The post-scan hook as a scanner calls it: a line, and 0, 1 or 2."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / "examples" / "post_scan_hook.py"
MAIN = "import sys; sys.argv[0] = 'mminfer'; from melanoma_infer.cli.app import main; main()"


def hook(slide, out, code=MAIN):
    """The exit code and the line of the hook, which calls Python with this code as mminfer."""
    command = [sys.executable, "-P", "-c", code]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MMINFER": shlex.join(command),
        "HOOK_PAUSES_S": "0 0",
    }
    ended = subprocess.run(
        [sys.executable, "-I", HOOK, slide, out], env=environment, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout


def test_a_whole_slide_is_scored_and_its_report_named(skin, tmp_path):
    code, line = hook(skin, tmp_path / "out")
    assert code == 0
    name, verdict, report = line.split()
    assert (name, verdict) == ("skin:", "indeterminate")
    assert Path(report).is_file()


def test_a_slide_that_was_cut_off_is_to_be_scanned_again(skin, tmp_path):
    cut = tmp_path / "cut.svs"
    cut.write_bytes(skin.read_bytes()[:-2000])
    code, line = hook(cut, tmp_path / "out")
    assert (code, line.startswith("cut: exit 10: ")) == (1, True)


FAILS = """
import json, os, sys
from pathlib import Path
Path(sys.argv[4], "calls").open("a").write("x")
print(json.dumps({"id": "a", "message": "why", "verdict": "indeterminate", "report": "r.html"}))
sys.exit(CODE)
"""


@pytest.mark.parametrize(
    ("code", "ends", "calls"), [("104", 2, 3), ("175", 2, 3), ("14", 2, 1), ("20", 2, 1), ("12", 1, 1)]
)
def test_what_may_pass_is_tried_three_times_and_the_rest_is_for_people(tmp_path, code, ends, calls):
    assert hook("a.svs", tmp_path, FAILS.replace("CODE", code)) == (ends, f"a: exit {code}: why\n")
    assert (tmp_path / "calls").read_text() == "x" * calls


def test_a_failure_that_has_passed_is_a_success(tmp_path):
    code = FAILS.replace("CODE", "104 if len(Path(sys.argv[4], 'calls').read_text()) < 2 else 0")
    assert hook("a.svs", tmp_path, code) == (0, "a: indeterminate r.html\n")


def test_a_missing_model_is_for_it(skin, tmp_path):
    code, line = hook(skin, tmp_path, "import sys; sys.exit(1)")
    assert (code, line) == (2, "the slide: exit 1: mminfer printed nothing\n")
