"""The files for a service: systemd takes them, and the command in them exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "deploy" / "mminfer-watch@.service"


def unit() -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_runs_watch_with_options_that_exist_and_takes_its_exit_codes_for_what_they_are():
    service = unit()["Service"]
    _, command, _, *argv = service["ExecStart"].split()
    assert command == "watch"
    reference = (ROOT / "docs" / "cli.md").read_text().split("## `mminfer watch`")[1].split("\n## ")[0]
    options = [word for word in argv if word.startswith("--")]
    assert options
    assert all(re.search(rf"^\* `.*{option}\b", reference, re.MULTILINE) for option in options)
    assert service["SuccessExitStatus"] == "143"
    assert "20" in service["RestartPreventExitStatus"].split()
    assert not {"14", "177"} & set(service["RestartPreventExitStatus"].split())
    watched = service["ExecStart"].split()[2]
    assert service["ReadOnlyPaths"] == watched


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path):
    text = UNIT.read_text().replace("/opt/mminfer/bin/mminfer", shutil.which("true") or "")
    installed = tmp_path / "mminfer-watch@room1.service"
    installed.write_text(text)
    ended = subprocess.run(["systemd-analyze", "verify", installed], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
