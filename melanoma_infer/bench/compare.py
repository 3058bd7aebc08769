"""Compares a run with an earlier one: faster, slower, or noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_infer.errors import UsageError

SAME = ("tile_px", "threads")
"""Keys whose values must be equal in two runs that are compared."""
SUBJECT = ("engine", "kernel", "provider", "plan", "precision", "shape")
"""Keys that identify a row, as far as it has them."""


@dataclass(frozen=True)
class Change:
    """How one subject of both runs changed."""

    name: str
    ratio: float
    """Its median throughput now, divided by that of the earlier run."""
    verdict: str
    """`faster` or `slower` if the ranges from p20 to p80 of both runs do not overlap, else `noise`."""


def earlier_run(path: Path, kind: str) -> dict[str, Any]:
    """The run that `--save` wrote to this file.

    Args:
        path: the file.
        kind: the benchmark that it must come from: "engines", "slide" or "kernels".

    Raises:
        UsageError: the file cannot be read, was not written by `--save`, or comes from another benchmark.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"rows", "kind", *SAME} <= found.keys():
            if found["kind"] == kind:
                return found
            raise UsageError(
                f"--compare: {path.name} was saved by `mminfer bench {found['kind']}`, not by `mminfer bench {kind}`."
            )
    except (OSError, ValueError) as error:
        raise UsageError(f"--compare: {path.name} cannot be read. Choose a file that --save wrote.") from error
    raise UsageError(f"--compare: {path.name} was not written by --save. Choose a file that was.")


def changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[Change]:
    """A change for each subject that both runs timed.

    Raises:
        UsageError: the runs have different tile sizes or numbers of threads.
    """
    for name in SAME:
        if now[name] != before[name]:
            raise UsageError(f"--compare: {name} is {before[name]} in the earlier run, but {now[name]} in this one.")
    old = {_subject(row): row for row in before["rows"]}
    for row in now["rows"]:
        if (subject := _subject(row)) not in old:
            continue
        earlier, verdict = old[subject], "noise"
        if row["p20"] > earlier["p80"]:
            verdict = "faster"
        elif row["p80"] < earlier["p20"]:
            verdict = "slower"
        yield Change(subject, row["tiles_per_s"] / earlier["tiles_per_s"], verdict)


def _subject(row: Mapping[str, Any]) -> str:
    return " ".join(str(row[part]) for part in SUBJECT if row.get(part) is not None)
