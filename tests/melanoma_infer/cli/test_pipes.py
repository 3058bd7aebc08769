"""Output to a program that stops reading: no message, and the command's own exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from kept_for_tests import run_records

MAIN = "import sys; sys.argv[0] = 'mminfer'\nfrom melanoma_infer.cli.app import main\nmain()"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no broken pipes of this kind")


def piped(*argv: object, read: int = 0, unbuffered: str = "") -> tuple[int, str]:
    """Exit code and stderr of a command whose stdout is closed after `read` bytes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    environment["PYTHONUNBUFFERED"] = unbuffered
    command = [sys.executable, "-c", MAIN, *map(str, argv)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if read:
            process.stdout.read(read)
        process.stdout.close()
        err = process.stderr.read()
        return process.wait(timeout=300), err


@pytest.mark.parametrize(
    "argv", [("bundle", "show"), ("bundle", "show", "--json"), ("score", "--help"), ("--version",)], ids=" ".join
)
def test_a_command_whose_output_nobody_reads_ends_quietly(argv):
    assert piped(*argv) == (0, "")


def test_so_does_one_whose_output_is_not_buffered():
    assert piped("bundle", "show", unbuffered="1") == (0, "")


def test_a_run_whose_output_nobody_reads_writes_every_result(skin, tmp_path):
    second = tmp_path / "second.svs"
    second.write_bytes(skin.read_bytes())
    code, err = piped("score", skin, second, "--out", tmp_path / "r", "--json", read=10)
    assert code == 0
    assert "Traceback" not in err
    assert "Broken" not in err
    assert len(list((tmp_path / "r").glob("*/result.json"))) == 2
    assert [run["state"] for run in run_records(tmp_path / "r")] == ["finished"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no file that is always full")
@pytest.mark.parametrize("argv", [("bundle", "show", "--json"), ("score", "--help")], ids=" ".join)
def test_output_to_a_full_disk_is_an_error_of_ours(argv):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", MAIN, *argv]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=300)
    assert ended.returncode == 14
    assert ended.stderr.startswith("mminfer: Standard output cannot be written: there is no space left")
