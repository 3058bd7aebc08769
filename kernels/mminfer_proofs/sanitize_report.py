"""The sanitizer's findings: a row for each launch, the limits that a row must keep, and the printed report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

SAME_CODE = " not run: same code as "
"""Between a target and the target whose results the row repeats."""
MOST_WAVEFRONTS = 60_000
"""attention_tail, per tile, with two bytes a value: its products on the tensor cores alone need 48,000."""
NOT_COVERED = (
    "wgmma, tcgen05, packed float32 (f32x2), atomics, local memory: refused, so sm_90 and later are not run",
    "time and occupancy; what ptxas makes of PTX",
    "the bank model: 32 banks of 4 bytes, never compared with a GPU's counters",
    "races between threads of one warp that run apart, and the order of memory between launches",
    "jumps and barriers that only some of the threads reach: refused, even where a GPU would allow them",
    "the hardware's rounding: the tensor cores' sums, ex2, div.full and rcp are float32, rounded to nearest, here",
    "registers that are read before they are written: they hold a pattern, so results would show it",
)


@dataclass(frozen=True)
class Row:
    """One launch of one kernel on one target; the costs are those of the whole launch."""

    kernel: str
    launch: str
    dtype: str
    target: str
    """Code that equals another target's, statement by statement, was run for that target only; the row says so."""
    shape: str
    """(N, C, h, w) of a map or of images; the number of scores for aggregate_tiles."""
    faults: int
    max_error: float | None
    """The error of the kernel's output that is nearest to its bound; only in the row of the kernel's last launch."""
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
    """The number of the far tile that was also right."""
    instructions: int


@dataclass(frozen=True)
class Result:
    """The rows of one case, and its problems and notes in words."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def breaches(row: Row) -> Iterator[str]:
    """Yield each limit that the row exceeds, in words."""
    if row.max_error is not None and row.allowed_error is not None and not row.max_error <= row.allowed_error:
        yield f"an error of {row.max_error:.2e}, above {row.allowed_error:.2e}"
    two_bytes = row.kernel == "attention_tail" and row.dtype != "float32"
    if two_bytes and row.wavefronts_per_tile is not None and row.wavefronts_per_tile > MOST_WAVEFRONTS:
        yield f"{row.wavefronts_per_tile:,} wavefronts a tile, above {MOST_WAVEFRONTS:,}"


def problems(results: Sequence[Result]) -> list[str]:
    """Everything that is wrong in the results, in words."""
    found: list[str] = []
    for result in results:
        found += result.problems
        for row in result.rows:
            if SAME_CODE not in row.target:
                found += [f"{row.kernel} {row.dtype} {row.shape} {row.target}: {each}" for each in breaches(row)]
    return found


def report(results: Sequence[Result]) -> str:
    """The table, what is wrong, what else was seen, and what is not covered."""
    rows = [row for result in results for row in result.rows]
    wrong = problems(results)
    seen = list(dict.fromkeys(note for result in results for note in result.notes))
    count = f"{len(wrong)} problems" if wrong else "no problems"
    lists = {"Wrong": wrong, "Seen": seen, "Not covered": NOT_COVERED, "Sum": [f"{len(rows)} launches, {count}."]}
    paragraphs = [f"{title}:\n" + "".join(f"  {line}\n" for line in lines) for title, lines in lists.items() if lines]
    return "\n".join(["".join(f"{line}\n" for line in _table(rows)), *paragraphs, ""])


def _table(rows: Sequence[Row]) -> list[str]:
    """The rows that were run, in columns of equal width, each with all targets that have the same code."""
    targets: dict[Row, list[str]] = {}
    for row in rows:
        number, _, same = row.target.partition(SAME_CODE)
        targets.setdefault(replace(row, target=same or number), []).append(number.removeprefix("sm_"))
    merged = [replace(row, target="sm_" + "/".join(numbers)) for row, numbers in targets.items()]
    shown = [each.name for each in fields(Row) if each.name not in ("wavefronts", "ideal_wavefronts")]
    cells = [shown]
    for row in merged:
        values = [getattr(row, name) for name in shown]
        whole = [f"{each:,}" if isinstance(each, int) else each for each in values]
        cells.append(
            ["-" if each is None else f"{each:.1e}" if isinstance(each, float) else str(each) for each in whole]
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(shown))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
