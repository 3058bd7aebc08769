"""The command as a process: light to import, silent on the network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from broken_bundles_for_tests import small_bundle
from kept_for_tests import run_records

HEAVY = ("numpy", "scipy", "openslide", "openvino", "onnx", "onnxruntime", "torch", "triton", "PIL", "rich")
SILENCERS = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
"""With these variables set, runtimes send nothing anyway, so the tests run without them."""

NO_SOCKETS = """
import sys
def hook(event, arguments):
    if event.startswith(("socket.", "http.client", "urllib", "ftplib", "smtplib")):
        print("OPENED", event, arguments, file=sys.stderr)
        import os; os._exit(99)
sys.addaudithook(hook)
sys.argv[0] = "mminfer"
from melanoma_infer.cli.app import main
main()
"""


def python(code: str, *argv: object, **more: str) -> subprocess.CompletedProcess[str]:
    return run_process([sys.executable, "-c", code, *map(str, argv)], **more)


def run_process(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in SILENCERS}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | more
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


@pytest.mark.wheel
def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['mminfer', 'score', '--help']\n"
        "from melanoma_infer.cli.app import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    ended = python(code)
    assert "--patients" in ended.stdout
    assert ended.stdout.rstrip().endswith("LOADED []"), ended.stdout[-300:]


QUIET = [["--version"], ["--help"], ["doctor"], ["doctor", "--json"], ["bundle", "show"], ["bundle", "check", "--json"]]
EACH_IN_TURN = NO_SOCKETS.replace(
    "main()",
    """
import contextlib, io, json
for argv in json.loads(sys.argv[1]):
    sys.argv[1:] = argv
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([argv, code or 0, bool(out.getvalue()), err.getvalue()]))
""",
)
"""Several commands in one process: doctor imports every runtime, which takes seconds."""


@pytest.mark.wheel
def test_commands_open_no_socket():
    ended = python(EACH_IN_TURN, json.dumps(QUIET))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [[argv, 0, True, ""] for argv in QUIET]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_scoring_opens_no_socket_not_even_in_native_code_and_writes_nothing_at_home(cmu, tmp_path, engine):
    (tmp_path / "home").mkdir()
    argv = ("score", str(cmu), "--out", str(tmp_path / "r"), "--engine", engine)
    assert "AF_INET" not in watched(tmp_path, *argv, HOME=str(tmp_path / "home"))
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace: child processes cannot be watched")
def test_verifying_opens_no_connection_nor_do_its_children(tmp_path):
    bundle = small_bundle(tmp_path / "small.mminfer")
    argv = ("verify", str(bundle), "--drawn", "1", "--engine", "onnxruntime")
    calls = watched(tmp_path, *argv, MMINFER_CACHE=str(tmp_path / "cache"))
    assert "AF_INET" not in calls
    assert len({line.split()[0] for line in calls.splitlines()}) > 1, "no child was seen"


def watched(tmp_path: Path, *argv: str, **more: str) -> str:
    """What a command and its children did with sockets; nothing where there is no strace. Python's own would end it."""
    calls = tmp_path / "calls"
    calls.touch()
    strace = (
        ["strace", "-f", "-qq", "-e", "trace=socket,connect,execve", "-o", str(calls)] if shutil.which("strace") else []
    )
    ended = run_process([*strace, sys.executable, "-c", NO_SOCKETS, *argv], **more)
    assert ended.returncode == 0, ended.stderr
    return calls.read_text()


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace: native code cannot be watched")
def test_the_watch_on_native_code_would_see_a_connection(tmp_path):
    code = "import socket; socket.socket(socket.AF_INET).connect_ex(('127.0.0.1', 9))"
    calls = tmp_path / "calls"
    run_process(["strace", "-f", "-qq", "-e", "trace=socket,connect", "-o", str(calls), sys.executable, "-c", code])
    assert "AF_INET" in calls.read_text()


def test_the_audit_hook_would_see_a_socket():
    code = NO_SOCKETS.replace("main()", "import socket; socket.socket()")
    assert python(code).returncode == 99


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_what_is_kept_and_leaves_no_partial_file(cmu, tmp_path, sent):
    code = (
        "import sys, time; sys.argv[0] = 'mminfer'\n"
        "from melanoma_infer.tiles.reading import TileStream\n"
        "each = TileStream.__iter__\n"
        "def slow(self):\n"
        "    for tile in each(self):\n"
        "        print('tile', file=sys.stderr, flush=True); time.sleep(0.2); yield tile\n"
        "TileStream.__iter__ = slow\n"
        "from melanoma_infer.cli.app import main; main()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", code, "score", str(cmu), "--out", str(tmp_path / "r"), "--tile-um", "256"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as run:
        assert run.stderr is not None
        while "tile" not in run.stderr.readline():
            pass
        run.send_signal(sent)
        rest = run.stderr.read()
    assert run.returncode == 128 + sent
    assert "stopped: the results of 0 of 1 slide are kept in" in rest
    assert "Traceback" not in rest
    left = {path.name for path in (tmp_path / "r").iterdir()}
    assert left <= {".key", ".lock", ".locks", "runs", "summary.csv"}
    assert [run["state"] for run in run_records(tmp_path / "r")] == ["interrupted"]


@pytest.mark.wheel
def test_importing_the_package_loads_no_runtime():
    heavy = (*HEAVY, "typer", "pydantic")
    packages = "melanoma_infer, mminfer_kernels, mminfer_export"
    code = f"import sys, {packages}; print([name for name in {heavy!r} if name in sys.modules])"
    assert python(code).stdout.strip() == "[]"


@pytest.mark.wheel
def test_scoring_needs_no_torch(tmp_path):
    """The core alone scores: torch, triton and onnxruntime are made impossible to import."""
    code = (
        "import sys\n"
        "for name in ('torch', 'triton', 'onnxruntime', 'onnxscript'): sys.modules[name] = None\n"
        "sys.argv[0] = 'mminfer'\n"
        "from melanoma_infer.cli.app import main; main()"
    )
    from PIL import Image

    Image.new("RGB", (400, 300), (160, 60, 130)).save(tmp_path / "a.png")
    ended = python(code, "score", tmp_path / "a.png", "--mpp", "0.5", "--out", tmp_path / "r", "--tissue", "all")
    assert ended.returncode == 0, ended.stderr
    assert "1 ok" in ended.stdout
    doctor = python(code, "doctor")
    assert doctor.returncode == 0
    assert "pip install 'mminfer[torch]'" in doctor.stdout
    assert "pip install 'mminfer[onnxruntime]'" in doctor.stdout


@pytest.mark.wheel
def test_the_version_is_the_package_s(tmp_path: Path):
    from importlib.metadata import version

    code = "import sys; sys.argv = ['mminfer', '--version']; from melanoma_infer.cli.app import main; main()"
    assert python(code).stdout.strip() == f"mminfer {version('mminfer')}"
