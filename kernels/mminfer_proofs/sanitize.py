"""Execute every kernel's compiled code on the CPU under the sanitizer: `python -m mminfer_proofs.sanitize`.

The PTX is that of the launches that a GPU would run (`catalogue.plan`), at the network's size and at a small odd size.
The outputs are compared with float64 (`bounds`). One program of a tile whose offsets exceed 32 bits is compared with
the same program of the first tile.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mminfer_kernels import catalogue
from mminfer_kernels.bounds import compare, worst
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.compile import Compiled, compile_launch
from mminfer_kernels.launch import TARGETS, Launch, Planned, Target
from mminfer_proofs.errors import KernelFault
from mminfer_proofs.rows import write_rows
from mminfer_proofs.sanitize_report import SAME_CODE, Result, Row, problems, report
from mminfer_proofs.sanitizer import Execution
from mminfer_proofs.sanitizer.far_tiles import check_far_scores, check_far_tile, far_tile
from mminfer_proofs.sanitizer.ptx import Program, parse
from mminfer_proofs.sanitizer.storage import run_launch

EXECUTED = (80, 86, 89)
"""Newer targets multiply with instructions that the sanitizer does not have."""


@dataclass(frozen=True)
class Case:
    """A kernel and a problem; one case covers all targets, because their code is mostly the same."""

    kernel: str
    problem: Problem
    far: bool = False
    """Whether a far tile is checked too."""

    @property
    def dtype(self) -> str:
        """The problem's dtype, for rows."""
        return str(self.problem.dtype).removeprefix("torch.")

    @property
    def shape(self) -> str:
        """The size of the input, for rows."""
        problem = self.problem
        if self.kernel == "normalize_tiles":
            return f"{problem.batch}x3x{problem.tile_px}x{problem.tile_px}"
        if self.kernel in catalogue.OF_PIXELS:
            return "x".join(map(str, catalogue.inputs(self.kernel, problem)["tiles"].shape))
        if self.kernel == "aggregate_tiles":
            return str(len(catalogue.inputs(self.kernel, problem)["scores"]))
        return problem.shape

    @property
    def effort(self) -> int:
        """A measure of the time taken: float32 products are single instructions, and the tail compiles longest."""
        products = self.kernel in ("attention_tail", "attention_project")
        return self.problem.channels * (10 if products else 1) * self.problem.dtype.itemsize


@dataclass
class Findings:
    """The problems and notes collected while a case runs on one target."""

    place: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, where: str, what: object) -> None:
        """Note a problem."""
        self.problems.append(f"{self.place}, {where}: {what}")


def cases() -> list[Case]:
    """Every kernel and dtype at the network's size, with a far tile, and at a small odd size."""
    return [
        Case(name, problem, far)
        for name in KERNELS
        for dtype in catalogue.dtypes(name)
        for problem, far in (
            (Problem(dtype, 2 if dtype.itemsize == 2 else 1, tile_px=64), True),
            (
                Problem(
                    dtype, 2, 44, 5, 7, kernel_size=3, classes=3, order="max-avg", tile_px=33, native_px=75, block_px=3,
                    pixel_bytes=3,
                ),
                False,
            ),
        )
    ]  # fmt: skip


def run_case(case: Case) -> Result:
    """Run a case on every target and return its rows; code that equals an earlier target's is not run again."""
    torch.set_num_threads(1)
    done: list[tuple[Target, list[tuple[int, Program]], Result]] = []
    for target in (TARGETS[sm] for sm in EXECUTED):
        planned = catalogue.plan(case.kernel, catalogue.inputs(case.kernel, case.problem), target)
        compiled = tuple(compile_launch(launch, target) for launch in planned.launches)
        # The statements must be the same; the headers may differ.
        code = [(each.shared_bytes, parse(each.ptx)) for each in compiled]
        twin = next((each for each in done if each[1] == code), None)
        if twin is None:
            result = _executed(case, target, planned, compiled)
        else:
            label = f"sm_{target.sm}{SAME_CODE}sm_{twin[0].sm}"
            result = Result(tuple(replace(row, target=label) for row in twin[2].rows))
        done.append((target, code, result))
    return Result(
        rows=tuple(row for _, _, result in done for row in result.rows),
        problems=tuple(problem for _, _, result in done for problem in result.problems),
        notes=tuple(note for _, _, result in done for note in result.notes),
    )


def run_all(chosen: Sequence[Case], jobs: int) -> list[Result]:
    """The results of all cases, in their order."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        longest_first = sorted(chosen, key=lambda case: case.effort, reverse=True)
        started = {case: pool.submit(run_case, case) for case in longest_first}
        return [started[case].result() for case in chosen]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mminfer_proofs.sanitize", description=__doc__)
    parser.add_argument(
        "--save", type=Path, required=True, metavar="FILE", help="CSV with a row for each launch, dtype and target"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="number of processes")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        parser.error("Triton's interpreter is on and compiles nothing: unset TRITON_INTERPRET and start again.")
    results = run_all(cases(), options.jobs)
    write_rows(options.save, [row for result in results for row in result.rows])
    sys.stdout.write(report(results))
    return bool(problems(results))


def _executed(case: Case, target: Target, planned: Planned[Any], compiled: tuple[Compiled, ...]) -> Result:
    """Run a case on one target, launch by launch, then compare its outputs with the truth."""
    found = Findings(f"{case.kernel} {case.dtype} {case.shape} sm_{target.sm}")
    far = _far_tiles(case, target, compiled, found) if case.far else {}
    rows: list[Row] = []
    for launch, code in zip(planned.launches, compiled, strict=True):
        before = len(found.problems)
        execution = _launched(launch, code, found)
        rows.append(_row(case, target, launch, execution, far.get(launch.name), len(found.problems) - before))
        if execution is None:
            return Result(tuple(rows), tuple(found.problems), tuple(found.notes))
    inputs = catalogue.inputs(case.kernel, case.problem)
    low = case.problem.dtype if len(catalogue.dtypes(case.kernel)) > 1 else torch.float32
    expected = (catalogue.reference(case.kernel, inputs), catalogue.reference(case.kernel, inputs, low))
    comparison = worst(map(compare, catalogue.outputs_of(planned.outputs), *expected))
    rows[-1] = replace(rows[-1], max_error=comparison.error, allowed_error=comparison.allowed)
    if not comparison.same_nan:
        found.problem("outputs", "NaN in other places than in the truth")
    return Result(tuple(rows), tuple(found.problems), tuple(found.notes))


def _launched(launch: Launch, code: Compiled, found: Findings) -> Execution | None:
    """The execution of a launch; None if it has a fault."""
    try:
        execution = run_launch(launch, code.ptx, code.shared_bytes)
    except KernelFault as fault:
        found.problem(launch.name, fault)
        return None
    for name, count in execution.unwritten.items():
        if count:
            found.problem(launch.name, f"{count:,} bytes of {name} are never written")
    if execution.disagreements:
        found.notes.append(
            f"{launch.name}: threads that compute the same sum round it differently (a product fused into the addition "
            "of a shuffled one) and store it to one shared address; the hardware decides which copy is kept"
        )
    return execution


def _far_tiles(case: Case, target: Target, compiled: tuple[Compiled, ...], found: Findings) -> dict[str, int]:
    """The far tiles that were right, by launch. Kernels of tiles get whole ones, since only they exceed 32 bits."""
    whole_tiles = [replace(case.problem, batch=n, tile_px=512, native_px=512) for n in (1, 2)]
    one, two = (catalogue.plan(case.kernel, catalogue.inputs(case.kernel, each), target) for each in whole_tiles)
    tiles: dict[str, int] = {}
    for launch, doubled, code in zip(one.launches, two.launches, compiled, strict=True):
        try:
            if launch.name == "aggregate_tiles":
                tiles[launch.name] = check_far_scores(launch, code.ptx, code.shared_bytes)
                continue
            resized = launch.name in ("normalize_tiles", "resize_tiles")
            whole = compile_launch(launch, target) if resized else code
            place = far_tile(launch, doubled)
            check_far_tile(launch, whole.ptx, whole.shared_bytes, place)
            tiles[launch.name] = place.tile
        except KernelFault as fault:
            found.problem(f"{launch.name}, far tile", fault)
    return tiles


def _row(case: Case, target: Target, launch: Launch, execution: Execution | None, far: int | None, faults: int) -> Row:
    tiles = case.problem.batch if case.kernel != "aggregate_tiles" else None
    real, ideal = (execution.wavefronts, execution.ideal_wavefronts) if execution else (0, 0)
    return Row(
        kernel=case.kernel,
        launch=launch.name,
        dtype=case.dtype,
        target=f"sm_{target.sm}",
        shape=case.shape,
        faults=faults + (case.far and far is None),
        max_error=None,
        allowed_error=None,
        loaded_bytes=sum(execution.loaded_bytes.values()) if execution else 0,
        stored_bytes=sum(execution.stored_bytes.values()) if execution else 0,
        sectors=sum(execution.sectors.values()) if execution else 0,
        ideal_sectors=sum(execution.ideal_sectors.values()) if execution else 0,
        wavefronts=real,
        ideal_wavefronts=ideal,
        wavefronts_per_tile=real // tiles if tiles else None,
        ideal_wavefronts_per_tile=ideal // tiles if tiles else None,
        far_tile=far,
        instructions=execution.instructions if execution else 0,
    )


if __name__ == "__main__":
    sys.exit(main())
