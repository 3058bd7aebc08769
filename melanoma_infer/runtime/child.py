"""Child processes: one module of this package, run in a Python process of its own.

An engine may crash on a graph, and a model file may hold code; neither may harm the process that scores. Children
import from this process's path, and nothing from the user's current folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

UNSAFE = "TORCH_FORCE_"
"""Variables with this prefix can make PyTorch unpickle code; no child inherits them."""
REASON_MAX = 200
"""Characters of the child's error that are quoted."""


@dataclass(frozen=True)
class ChildFailure:
    """How a child ended ("SIGFPE", "exit 1", "stopped after 300 s"), and the error that it printed, if any."""

    ending: str
    error: str = ""

    def __str__(self) -> str:
        return f"{self.ending}: {self.error}" if self.error else self.ending


def run_child(module: str, *arguments: str | Path, seconds: float) -> ChildFailure | None:
    """Run a module until it ends; None when it succeeded. It prints nothing here: files carry its answer."""
    try:
        ended = subprocess.run(
            child_command(module, *arguments), capture_output=True, env=child_environment(), timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return ChildFailure(f"stopped after {seconds:.4g} s")
    if ended.returncode == 0:
        return None
    died = -ended.returncode in set(signal.Signals)
    ending = signal.Signals(-ended.returncode).name if died else f"exit {ended.returncode}"
    # The exception of the last traceback, else the last line: one line, without the paths of this machine.
    stderr = ended.stderr.decode(errors="replace").splitlines()
    lines = [line.strip() for line in stderr if line and not line.startswith((" ", "\t"))]
    tracebacks = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
    told = lines[tracebacks[-1] + 1 :][:1] if tracebacks else lines[-1:]
    error = " ".join(word for line in told for word in line.split() if os.sep not in word)
    return ChildFailure(ending, error[:REASON_MAX].rstrip(" .:"))


def child_command(module: str, *arguments: str | Path) -> list[str]:
    """The command line that runs a module in a child."""
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def child_environment() -> dict[str, str]:
    """This process's environment and import path, for a child."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(UNSAFE)}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
