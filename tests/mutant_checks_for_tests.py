"""Checks that a mutant of a kernel must fail: parity, bytes moved, accesses inside arguments, NaN in its own tile."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch

from mminfer_kernels import catalogue
from mminfer_kernels.bounds import compare
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.launch import TAIL_PIXELS, TARGETS
from mminfer_proofs import traffic

USED_BY = {
    "device": KERNELS,
    "channel_pool": ("spatial_attention",),
}
PROBLEMS = (
    Problem(torch.float16, 2, 96, 7, 7, tile_px=8, features=16, middle=16),
    Problem(torch.float32, 2, 140, 5, 9, kernel_size=3, order="max-avg", tile_px=40, features=32, middle=32, classes=3),
    Problem(torch.float32, 1, 16, 17, 19, features=16, middle=16, tile_px=3),
)
"""Between them: whole and partial blocks, one and several of them, each order, maps beyond attention_tail's."""
PIXEL_PROBLEMS = (
    Problem(torch.uint8, 2, tile_px=9, native_px=21, block_px=3),
    Problem(torch.uint8, 1, tile_px=88, native_px=100, pixel_bytes=3),
)
"""The same for functions of pixels: several blocks across and down, tiles with both spans."""

Moved = dict[tuple[str, int], dict[str, tuple[int, int]]]


def fails(module: str, source: str, path: Path, moved: Moved) -> None:
    """End this process: 1 where a check fails, 0 where the mutant survives them all."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    path.write_text(source, encoding="utf-8")
    try:
        _import_as(f"mminfer_kernels.{module}", path)
        for name in USED_BY.get(module, (module,)):
            check(name, moved)
    except Exception:  # noqa: BLE001 - a mutant may fail in any way
        os._exit(1)
    os._exit(0)


def problems_when_compiled(module: str, source: str, path: Path) -> list[str]:
    """The problems that the ahead-of-time compiler finds in a mutant; for a process that compiles nothing else."""
    path.write_text(source, encoding="utf-8")
    _import_as(f"mminfer_kernels.{module}", path)
    from mminfer_proofs import aot

    name = "channel_pool" if module == "device" else module
    launches = aot.launches(Problem(torch.float32, 1), TARGETS[80])
    first = next(launch.name for launch in launches if launch.kernel.fn.__module__.endswith(name))
    return list(aot.problems(aot.row_of(first, Problem(torch.float32, 1), TARGETS[80])))


def check(name: str, moved: Moved) -> Moved:
    """Run all checks of a kernel, compare the bytes moved with `moved` if it has them, and return them."""
    found: Moved = {}
    for index, problem in enumerate(PIXEL_PROBLEMS if name in catalogue.OF_PIXELS else PROBLEMS):
        if _fits(name, problem):
            found[name, index] = _check_numbers(name, problem)
            assert moved.get((name, index), found[name, index]) == found[name, index], "moves other bytes"
            if index == 0:
                _check_nan(name, problem)
    return found


def _check_numbers(name: str, problem: Problem) -> dict[str, tuple[int, int]]:
    arguments = _inputs(name, problem)
    results, moved = _run(name, arguments)
    truth = catalogue.reference(name, arguments)
    low = catalogue.reference(name, arguments, problem.dtype)
    for result, exact, torchs in zip(results, truth, low, strict=True):
        assert compare(result, exact, torchs).holds, "wrong numbers"
    return moved


def _check_nan(name: str, problem: Problem) -> None:
    if name in ("normalize_tiles", "aggregate_tiles", *catalogue.OF_PIXELS):
        return
    arguments = _inputs(name, problem)
    poisoned = catalogue.map_tensors(torch.Tensor.clone, arguments)
    x = poisoned["projection"].projected if name == "attention_head" else poisoned["x"]
    x[1, 3, 2, 4] = float("nan")
    clean, dirty = _run(name, arguments)[0], _run(name, poisoned)[0]
    for index, (before, after) in enumerate(zip(clean, dirty, strict=True)):
        assert torch.equal(before[0], after[0]), "NaN in another tile"
        if name != "attention_head" or index != 1:  # its attention comes from the other maps
            assert not after[1].isfinite().all(), "NaN lost"
    if name in ("attention_tail", "attention_head"):
        assert not dirty[0][1].isfinite().any(), "a probability beside NaN"
        assert not dirty[2][1].isfinite().any(), "a map beside NaN"


def _run(name: str, arguments: dict[str, Any]) -> tuple[tuple[torch.Tensor, ...], dict[str, tuple[int, int]]]:
    planned = catalogue.plan(name, arguments, TARGETS[80])
    for launch in planned.launches:
        for stored in launch.stored:
            tensor = launch.arguments[stored]
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0x5A)
    with traffic.counting(traffic.tensors_of(planned)) as moved:
        results = catalogue.outputs_of(planned.run())
    return results, {key: (moved.loaded[key], moved.stored[key]) for key in {*moved.loaded, *moved.stored}}


def _inputs(name: str, problem: Problem) -> dict[str, Any]:
    arguments = catalogue.inputs(name, problem)
    if name == "aggregate_tiles" and problem.batch == 2:
        arguments["ranks"] = torch.tensor([1, 1, 1, 2])
    return arguments


def _fits(name: str, problem: Problem) -> bool:
    if name in catalogue.ONLY and problem.dtype is not torch.float32:
        return name == "aggregate_tiles" or problem is PROBLEMS[0]
    return name != "attention_tail" or problem.height * problem.width <= TAIL_PIXELS


def _import_as(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
