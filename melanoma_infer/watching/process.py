"""Whether a process is still running: known for the processes of this computer, where Linux tells."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, unlike any other, also one that gets its number later."""

    machine: str
    """The boot of the computer, and the namespace of process numbers in it; empty where they are not known."""
    number: int
    started: str
    """When it was started, in the kernel's ticks since the boot; empty where it is not known."""


def this_process() -> Process:
    """The process that runs this."""
    return Process(_machine(), os.getpid(), _started(os.getpid()))


def is_known_dead(process: Process) -> bool:
    """Whether a process has surely ended; False for one of another computer or container."""
    return bool(process.machine) and process.machine == _machine() and _started(process.number) != process.started


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(number: int) -> str:
    """Empty for a process that has ended, also if its parent has not taken note of it."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
