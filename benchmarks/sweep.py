"""Which launch parameters are best for a GPU: every kernel with half, as many and twice the warps and block sizes.

    python benchmarks/sweep.py [--batch 32] [--kernel NAME] [--save benchmarks/results/sweep.csv]      # on a GPU
    python benchmarks/sweep.py --compile 90 …                                                          # anywhere

On a GPU each candidate is checked against the reference and timed; without one, `--compile` says what the compiler
makes of it. Candidates that spill, or need more shared memory than the target has, are not timed. The fastest row of a
kernel belongs into `mminfer_kernels.launch`, with its reason. It has not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from mminfer_kernels import catalogue, launch, timing
from mminfer_kernels.bounds import compare, worst
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.compile import compile_launch
from mminfer_kernels.errors import KernelError
from mminfer_kernels.launch import TARGETS, Launch, LaunchConfig, Planned, Target, target_of
from mminfer_proofs import resources
from mminfer_proofs.rows import write_rows

FACTORS = (0.5, 1, 2)
WARPS = (1, 2, 4, 8, 16)
STAGES = (1, 2, 3)
FIXED = ("BLOCK_K",)
"""Block sizes that follow from the problem."""
CONFIGS = [name for name in vars(launch) if name.endswith("_config")]
"""The functions whose answers are varied."""


@dataclass(frozen=True)
class Row:
    """One candidate."""

    kernel: str
    dtype: str
    batch: int
    target: str
    warps: int
    stages: int
    blocks: str
    is_current: bool
    registers: int
    spill_bytes: int
    shared_bytes: int
    wgmma: bool
    fits: bool
    median_ms: float | None
    """None where it was not timed."""
    max_error: float | None


def main() -> int:
    """Sweep, print the best rows, and save all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=KERNELS, action="append")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--compile", type=int, choices=sorted(TARGETS), metavar="SM")
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args()
    here = None if asked.compile else _target_here()
    if not asked.compile and here is None:
        parser.error("There is no CUDA device that runs the kernels here. Give --compile SM.")
    rows: list[Row] = []
    for name in asked.kernel or KERNELS:
        dtype = getattr(torch, asked.dtype)
        dtype = dtype if dtype in catalogue.dtypes(name) else catalogue.dtypes(name)[0]
        found = list(rows_of(name, Problem(dtype, asked.batch), here or TARGETS[asked.compile], timed=here is not None))
        rows += found
        for row in best(found):
            print(row)
    if asked.save:
        write_rows(asked.save, rows)
    return 0


def best(rows: list[Row]) -> list[Row]:
    """What runs now and, if it was timed, what is fastest."""
    timed = [row for row in rows if row.median_ms is not None]
    current = [row for row in rows if row.is_current]
    return [*current, *([min(timed, key=lambda row: row.median_ms or 0.0)] if timed else [])]


def rows_of(name: str, problem: Problem, target: Target, *, timed: bool) -> Iterator[Row]:
    """A row for each launch of a kernel and each candidate."""
    arguments = catalogue.inputs(name, replace(problem, batch=problem.batch if timed else 1))
    if timed:
        arguments = catalogue.map_tensors(lambda tensor: tensor.cuda(), arguments)
    current = catalogue.plan(name, arguments, target)
    for place, now in enumerate(current.launches):
        for config in candidates(now.config):
            try:
                planned = planned_with(name, arguments, target, now.config, config)
                row = compiled(planned.launches[place], problem, target, is_current=config == now.config)
            except Exception as error:  # noqa: BLE001 - Triton's compiler raises what it likes
                print(f"{now.name} {_words(config)}: {type(error).__name__}", file=sys.stderr)
                continue
            yield timed_row(row, name, arguments, planned, problem) if timed and row.fits else row


def candidates(now: LaunchConfig) -> Iterator[LaunchConfig]:
    """The parameters that are used now, and those around them."""
    sizes = {
        name: [size] if name in FIXED else sorted({max(1, int(size * factor)) for factor in FACTORS})
        for name, size in now.blocks.items()
    }
    warps = sorted({int(now.num_warps * factor) for factor in FACTORS} & set(WARPS))
    for num_warps, num_stages, *blocks in product(warps, STAGES, *sizes.values()):
        yield replace(now, num_warps=num_warps, num_stages=num_stages, blocks=dict(zip(sizes, blocks, strict=True)))


def planned_with(
    name: str, arguments: Mapping[str, Any], target: Target, now: LaunchConfig, config: LaunchConfig
) -> Planned[Any]:
    """The plan of a kernel in which one launch has another configuration; its grid follows."""
    changed = []
    for module in (sys.modules[each] for each in list(sys.modules) if each.startswith("mminfer_kernels.")):
        for function in CONFIGS:
            if module is not launch and hasattr(module, function):
                instead = partial(_instead, getattr(launch, function), now, config)
                changed.append(patch.object(module, function, instead))
    for each in changed:
        each.start()
    try:
        return catalogue.plan(name, dict(arguments), target)
    finally:
        for each in changed:
            each.stop()


def _instead(function: Any, now: LaunchConfig, config: LaunchConfig, *arguments: Any) -> LaunchConfig:
    given: LaunchConfig = function(*arguments)
    return config if given == now else given


def compiled(candidate: Launch, problem: Problem, target: Target, *, is_current: bool) -> Row:
    """What the compiler makes of a launch."""
    code = compile_launch(candidate, target)
    machine = resources.machine_code(code.cubin)
    return Row(
        kernel=candidate.name,
        dtype=str(problem.dtype).removeprefix("torch."),
        batch=problem.batch,
        target=f"sm_{target.sm}",
        warps=candidate.config.num_warps,
        stages=candidate.config.num_stages,
        blocks=_words(candidate.config),
        is_current=is_current,
        registers=machine.registers,
        spill_bytes=machine.spill_bytes,
        shared_bytes=code.shared_bytes,
        wgmma="wgmma.mma_async" in code.ptx,
        fits=not machine.spill_bytes and code.shared_bytes <= target.shared_limit_bytes,
        median_ms=None,
        max_error=None,
    )


def timed_row(row: Row, name: str, arguments: Mapping[str, Any], planned: Planned[Any], problem: Problem) -> Row:
    """The row with its time, if its answer is right.

    Raises:
        KernelError: it is not: a candidate may be slow, but never wrong.
    """
    exact = catalogue.reference(name, dict(arguments))
    low = catalogue.reference(name, dict(arguments), problem.dtype)
    results = catalogue.outputs_of(planned.run())
    furthest = worst(map(compare, results, exact, low))
    if not furthest.holds:
        raise KernelError(f"{row.kernel} with {row.blocks} and {row.warps} warps is wrong: {furthest}.")
    _, median, _ = timing.milliseconds(planned.run, "cuda", in_graph=(name, "kernel") not in timing.READ_ON_THE_HOST)
    return replace(row, median_ms=median, max_error=furthest.error)


def _target_here() -> Target | None:
    return target_of(torch.device("cuda", torch.cuda.current_device())) if torch.cuda.is_available() else None


def _words(config: LaunchConfig) -> str:
    return " ".join(f"{name}={size}" for name, size in config.blocks.items())


if __name__ == "__main__":
    sys.exit(main())
