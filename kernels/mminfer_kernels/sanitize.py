"""Every kernel's compiled code, executed on the CPU under the sanitizer: `python -m mminfer_kernels.sanitize`.

The PTX is that of the launches that a GPU would run (`catalogue.plan`), at the network's size and at a small odd one.
What it writes is held against float64 (`bounds`), and one program of a tile beyond what 32 bits can count against that
of the first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mminfer_kernels import aot, catalogue
from mminfer_kernels.aot import Compiled
from mminfer_kernels.bounds import Comparison, compare, worst
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.errors import KernelFault
from mminfer_kernels.launch import TARGETS, Launch, Planned, Target
from mminfer_kernels.rows import write_rows
from mminfer_kernels.sanitizer import Execution
from mminfer_kernels.sanitizer.far_tiles import check_far_scores, check_far_tile, far_tile
from mminfer_kernels.sanitizer.ptx import parse
from mminfer_kernels.sanitizer.storage import run_launch

EXECUTED = (80, 86, 89)
"""Newer targets multiply with instructions that the sanitizer does not have."""
SAME_CODE = " not run: same code as "
"""Between a target and the one whose results a row repeats."""
MOST_WAVEFRONTS = 60_000
"""Of attention_tail, a tile, at two bytes a value: 48,000 is the least that its products on the tensor cores take."""
NOT_COVERED = (
    "wgmma, tcgen05, packed float32 (f32x2), atomics, local memory: refused, so sm_90 and later are not run",
    "time and occupancy; what ptxas makes of PTX",
    "the bank model: 32 banks of 4 bytes, never compared with a GPU's counters",
    "races between threads of one warp that run apart, and the order of memory between launches",
    "jumps and barriers that some threads reach and others do not: refused, even where a GPU would allow them",
    "the hardware's rounding: the tensor cores' sums, ex2, div.full and rcp are float32, rounded to nearest, here",
    "registers that are read before they are written: they hold a pattern, so results would show it",
)


@dataclass(frozen=True)
class Row:
    """One launch of one kernel on one target; costs are those of the whole launch."""

    kernel: str
    launch: str
    dtype: str
    target: str
    """Where the code is another target's, statement by statement, it was run for that one only: the row says so."""
    shape: str
    """(N, C, h, w) of a map or of images; the number of scores for aggregate_tiles."""
    faults: int
    max_error: float | None
    """Of the kernel's output that is nearest to its bound, or furthest beyond it; with the last of its launches."""
    allowed_error: float | None
    loaded_bytes: int
    stored_bytes: int
    sectors: int
    ideal_sectors: int
    wavefronts: int
    ideal_wavefronts: int
    wavefronts_per_tile: int | None
    ideal_wavefronts_per_tile: int | None
    far_tile: int | None
    """The number of the far tile that was right too."""
    instructions: int


@dataclass(frozen=True)
class Case:
    """A kernel and a problem; all targets of it go together, because their code is mostly the same."""

    kernel: str
    problem: Problem
    far: bool = False


@dataclass(frozen=True)
class Result:
    """A case's rows, and what is wrong or worth knowing, in words."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Findings:
    """What comes together while a case runs."""

    place: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, launch: str, fault: KernelFault) -> None:
        """Note a fault."""
        self.problems.append(f"{self.place}, {launch}: {fault}")


def cases() -> list[Case]:
    """The network's size, with a far tile, and a small odd size; for every kernel and dtype."""
    return [
        Case(name, problem, far)
        for name in KERNELS
        for dtype in catalogue.dtypes(name)
        for problem, far in (
            (Problem(dtype, 2 if dtype.itemsize == 2 else 1, tile_px=64), True),
            (Problem(dtype, 2, 44, 5, 7, kernel_size=3, classes=3, order="max-avg", tile_px=33), False),
        )
    ]


def run_case(case: Case) -> Result:
    """The rows of a case on every target."""
    torch.set_num_threads(1)
    done: list[tuple[Target, tuple[Compiled, ...], Result]] = []
    for target in (TARGETS[sm] for sm in EXECUTED):
        planned = catalogue.plan(case.kernel, catalogue.inputs(case.kernel, case.problem), target)
        compiled = tuple(aot.compile_launch(launch, target) for launch in planned.launches)
        twin = next((each for each in done if _same_code(each[1], compiled)), None)
        if twin is None:
            done.append((target, compiled, _executed(case, target, planned, compiled)))
        else:
            label = f"sm_{target.sm}{SAME_CODE}sm_{twin[0].sm}"
            rows = tuple(replace(row, target=label) for row in twin[2].rows)
            done.append((target, compiled, Result(rows)))
    return Result(
        rows=tuple(row for _, _, result in done for row in result.rows),
        problems=tuple(problem for _, _, result in done for problem in result.problems),
        notes=tuple(note for _, _, result in done for note in result.notes),
    )


def breaches(row: Row) -> Iterator[str]:
    """What a row must not show, in words."""
    if row.max_error is not None and row.allowed_error is not None and not row.max_error <= row.allowed_error:
        yield f"an error of {row.max_error:.2e}, above {row.allowed_error:.2e}"
    of_two_bytes = row.kernel == "attention_tail" and row.dtype != "float32"
    if of_two_bytes and row.wavefronts_per_tile is not None and row.wavefronts_per_tile > MOST_WAVEFRONTS:
        yield f"{row.wavefronts_per_tile:,} wavefronts a tile, above {MOST_WAVEFRONTS:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything, print what was found, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mminfer_kernels.sanitize", description=__doc__)
    parser.add_argument(
        "--save", type=Path, required=True, metavar="FILE", help="CSV, a row a launch, dtype and target"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        parser.error("Triton's interpreter is on, and compiles nothing: unset TRITON_INTERPRET and start again.")
    results = run_all(cases(), options.jobs)
    rows = [row for result in results for row in result.rows]
    write_rows(options.save, rows)
    sys.stdout.write(report(results))
    return bool(list(_wrong(results)))


def run_all(chosen: Sequence[Case], jobs: int) -> list[Result]:
    """The results of all cases, in their order."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        started = {case: pool.submit(run_case, case) for case in sorted(chosen, key=_effort, reverse=True)}
        return [started[case].result() for case in chosen]


def report(results: Sequence[Result]) -> str:
    """The table, what is wrong, what else was seen, and what nobody has looked at."""
    rows = [row for result in results for row in result.rows]
    wrong = list(_wrong(results))
    seen = list(dict.fromkeys(note for result in results for note in result.notes))
    summary = f"{len(rows)} launches, {len(wrong)} things wrong." if wrong else f"{len(rows)} launches, nothing wrong."
    parts = {"": _table(_together(rows)), "Wrong": wrong, "Seen": seen, "Not covered": NOT_COVERED, "Sum": [summary]}
    return "".join(_paragraph(title, lines) for title, lines in parts.items() if lines)


def _executed(case: Case, target: Target, planned: Planned[Any], compiled: tuple[Compiled, ...]) -> Result:
    """A case on one target: launch by launch, then its outputs against the truth."""
    found = Findings(f"{case.kernel} {_dtype(case)} {_shape(case)} sm_{target.sm}")
    far = _far_tiles(case, target, compiled, found) if case.far else {}
    rows: list[Row] = []
    for launch, code in zip(planned.launches, compiled, strict=True):
        before = len(found.problems)
        execution = _launched(launch, code, found)
        rows.append(_row(case, target, launch, execution, far.get(launch.name), len(found.problems) - before))
        if execution is None:
            break
    else:
        comparison = worst(_compared(case, planned))
        rows[-1] = replace(rows[-1], max_error=comparison.error, allowed_error=comparison.allowed)
        if not comparison.same_nan:
            found.problems.append(f"{found.place}: NaN stands where there should be none, or is missing")
    return Result(tuple(rows), tuple(found.problems), tuple(found.notes))


def _launched(launch: Launch, code: Compiled, found: Findings) -> Execution | None:
    """The execution of a launch, or nothing where it is at fault."""
    try:
        execution = run_launch(launch, code.ptx, code.shared_bytes)
    except KernelFault as fault:
        found.fault(launch.name, fault)
        return None
    for name, count in execution.unwritten.items():
        if count:
            found.problems.append(f"{found.place}, {launch.name}: {count:,} bytes of {name} are never written")
    if execution.disagreements:
        found.notes.append(
            f"{launch.name}: threads that compute the same sum round it apart (a product fused into the addition of a "
            "shuffled one), and store it to one shared address: which copy counts is the hardware's choice"
        )
    return execution


def _far_tiles(case: Case, target: Target, compiled: tuple[Compiled, ...], found: Findings) -> dict[str, int]:
    """The far tiles that were right, by launch. normalize_tiles has whole tiles here: only they pass 32 bits."""
    one, two = (_planned(case.kernel, replace(case.problem, batch=batch, tile_px=512), target) for batch in (1, 2))
    tiles: dict[str, int] = {}
    for launch, doubled, code in zip(one.launches, two.launches, compiled, strict=True):
        try:
            if launch.name == "aggregate_tiles":
                tiles[launch.name] = check_far_scores(launch, code.ptx, code.shared_bytes)
                continue
            whole = code if launch.name != "normalize_tiles" else aot.compile_launch(launch, target)
            place = far_tile(launch, doubled)
            check_far_tile(launch, whole.ptx, whole.shared_bytes, place)
            tiles[launch.name] = place.tile
        except KernelFault as fault:
            found.fault(f"{launch.name}, far tile", fault)
    return tiles


def _planned(name: str, problem: Problem, target: Target) -> Planned[Any]:
    return catalogue.plan(name, catalogue.inputs(name, problem), target)


def _compared(case: Case, planned: Planned[Any]) -> list[Comparison]:
    inputs = catalogue.inputs(case.kernel, case.problem)
    low = case.problem.dtype if len(catalogue.dtypes(case.kernel)) > 1 else torch.float32
    outputs = catalogue.outputs_of(planned.outputs)
    expected = (catalogue.reference(case.kernel, inputs), catalogue.reference(case.kernel, inputs, low))
    return [compare(*each) for each in zip(outputs, *expected, strict=True)]


def _row(case: Case, target: Target, launch: Launch, execution: Execution | None, far: int | None, faults: int) -> Row:
    tiles = case.problem.batch if case.kernel != "aggregate_tiles" else None
    real, ideal = (execution.wavefronts, execution.ideal_wavefronts) if execution else (0, 0)
    return Row(
        kernel=case.kernel,
        launch=launch.name,
        dtype=_dtype(case),
        target=f"sm_{target.sm}",
        shape=_shape(case),
        faults=faults + (case.far and far is None),
        max_error=None,
        allowed_error=None,
        loaded_bytes=_sum(execution.loaded_bytes) if execution else 0,
        stored_bytes=_sum(execution.stored_bytes) if execution else 0,
        sectors=_sum(execution.sectors) if execution else 0,
        ideal_sectors=_sum(execution.ideal_sectors) if execution else 0,
        wavefronts=real,
        ideal_wavefronts=ideal,
        wavefronts_per_tile=real // tiles if tiles else None,
        ideal_wavefronts_per_tile=ideal // tiles if tiles else None,
        far_tile=far,
        instructions=execution.instructions if execution else 0,
    )


def _dtype(case: Case) -> str:
    return str(case.problem.dtype).removeprefix("torch.")


def _shape(case: Case) -> str:
    problem = case.problem
    if case.kernel == "normalize_tiles":
        return f"{problem.batch}x3x{problem.tile_px}x{problem.tile_px}"
    if case.kernel == "aggregate_tiles":
        return str(len(catalogue.inputs(case.kernel, problem)["scores"]))
    return problem.shape


def _sum(by_argument: Mapping[str, int]) -> int:
    return sum(by_argument.values())


def _same_code(one: Sequence[Compiled], other: Sequence[Compiled]) -> bool:
    """Whether the statements are the same, whatever stands in the header."""
    return all(
        first.shared_bytes == second.shared_bytes and parse(first.ptx) == parse(second.ptx)
        for first, second in zip(one, other, strict=True)
    )


def _effort(case: Case) -> int:
    """A measure of a case's time: float32 products are single instructions, and the tail compiles longest."""
    products = case.kernel in ("attention_tail", "attention_project")
    return case.problem.channels * (10 if products else 1) * case.problem.dtype.itemsize


def _wrong(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        yield from result.problems
        for row in result.rows:
            if SAME_CODE not in row.target:
                yield from (f"{row.kernel} {row.dtype} {row.shape} {row.target}: {each}" for each in breaches(row))


def _paragraph(title: str, lines: Sequence[str]) -> str:
    indented = "".join(f"{'  ' if title else ''}{line}\n" for line in lines)
    return f"{title}:\n{indented}\n" if title else f"{indented}\n"


def _together(rows: Sequence[Row]) -> list[Row]:
    """The rows that were run, each with the targets that have the same code."""
    targets: dict[Row, list[str]] = {}
    for row in rows:
        number, _, same = row.target.partition(SAME_CODE)
        executed = replace(row, target=same or number)
        targets.setdefault(executed, []).append(number.removeprefix("sm_"))
    return [replace(row, target="sm_" + "/".join(numbers)) for row, numbers in targets.items()]


def _table(rows: Sequence[Row]) -> list[str]:
    """Rows in columns of equal width."""
    shown = [each.name for each in fields(Row) if each.name not in ("wavefronts", "ideal_wavefronts")]
    cells = [shown, *([_cell(getattr(row, name)) for name in shown] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(shown))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1e}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
