"""Thread counts follow the cores that a container grants, not those that it shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from melanoma_infer.runtime.cores import available_cores, reader_count


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)


def machine_with(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 16),
        ("0::/a.slice/b.scope\n", {"sys/fs/cgroup/a.slice/b.scope/cpu.max": "300000 100000\n"}, 3),
        ("0::/a.slice/b.scope\n", {"sys/fs/cgroup/a.slice/cpu.max": "500000 100000\n"}, 5),
        ("0::/docker/1f\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            "3:memory:/x\n2:cpu,cpuacct:/docker/1f\n0::/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            6,
        ),
        (
            "2:cpu:/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            16,
        ),
        ("0::/\n", {}, 16),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path, cgroup, files, cores):
    assert available_cores(machine_with(tmp_path, cgroup, files)) == cores


def test_a_machine_without_control_groups_has_its_affinity(tmp_path, monkeypatch):
    assert available_cores(tmp_path) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 7})
    assert available_cores(tmp_path) == 2


def test_a_system_without_affinity_counts_its_cores(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert available_cores(tmp_path) == 12


@pytest.mark.parametrize(("cores", "cpu", "gpu"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 2), (16, 4, 14)])
def test_four_threads_read_for_a_cpu_engine_and_all_cores_but_two_for_a_gpu(cores, cpu, gpu):
    assert (reader_count(cores), reader_count(cores, on_gpu=True)) == (cpu, gpu)
