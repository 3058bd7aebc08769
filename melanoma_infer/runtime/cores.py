"""The cores that this process may use: its affinity, and the quota of its container; and how many read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

READERS_MAX = 4
"""Threads that read or resize tiles for a CPU engine: it needs no more. Each handle has OpenSlide's cache of 32 MiB."""
CORES_BESIDE_READERS = 2
"""For a GPU: one core for the thread that feeds it, and one for opening, finishing and writing slides."""


def available_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use, at least 1.

    A container that may use 2.5 of 64 cores sees all 64; with as many threads it would be paused for most of each
    scheduling period.

    Args:
        root: the folder that holds /proc and /sys.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([seen, *(ceil(quota) for quota in _quotas(root))]))


def reader_count(cores: int, *, on_gpu: bool = False) -> int:
    """How many threads read or resize tiles for an engine, at least 1.

    A CPU engine computes on the same cores. A GPU takes tiles faster than four cores decode them, so all cores but
    CORES_BESIDE_READERS read for it.

    Args:
        cores: that this process uses.
        on_gpu: whether the engine computes on a GPU.
    """
    return max(1, cores - CORES_BESIDE_READERS) if on_gpu else min(cores, READERS_MAX)


def _quotas(root: Path) -> Iterator[float]:
    """Cores that each control group above this process grants (Linux; cgroup v2, then v1)."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mounted, files = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            mounted, files = root / "sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        own = Path(group.lstrip("/"))
        # A container sees its own group at the mount, under whatever name the host has for it.
        for folder in (own, *own.parents):
            words = [word for name in files for word in _text(mounted / folder / name).split()]
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
                yield int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
