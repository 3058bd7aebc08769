"""This run against an earlier one: faster, slower, or noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_infer.errors import UsageError

SAME = ("tile_px", "threads")
"""What two runs must have in common."""
SUBJECT = ("engine", "kernel", "provider", "precision", "shape")
"""What names a row, where it has it."""


@dataclass(frozen=True)
class Change:
    """One subject in both runs."""

    name: str
    ratio: float
    """Its median rate now by that of the earlier run."""
    verdict: str
    """`faster` or `slower` where the middle halves of both runs' repeats lie apart, else `noise`."""


def earlier_run(path: Path, kind: str) -> dict[str, Any]:
    """What `--save` wrote of the same kind of bench: "engines", "slide" or "kernels".

    Raises:
        UsageError: it cannot be read, or is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"rows", "kind", *SAME} <= found.keys():
            if found["kind"] == kind:
                return found
            raise UsageError(f"--compare: {path.name} is of `mminfer bench {found['kind']}`, not of `{kind}`.")
    except (OSError, ValueError) as error:
        raise UsageError(f"--compare: {path.name} cannot be read. Give a file that --save wrote.") from error
    raise UsageError(f"--compare: {path.name} is not a file that --save wrote.")


def changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[Change]:
    """A change for each subject that both runs timed.

    Raises:
        UsageError: they did not time the same thing.
    """
    for name in SAME:
        if now[name] != before[name]:
            raise UsageError(f"--compare: the earlier run has {name} {before[name]}, and this one {now[name]}.")
    old = {_subject(row): row for row in before["rows"]}
    for row in now["rows"]:
        if (subject := _subject(row)) in old:
            yield _change(subject, row, old[subject])


def _subject(row: Mapping[str, Any]) -> str:
    return " ".join(str(row[part]) for part in SUBJECT if part in row)


def _change(subject: str, row: Mapping[str, Any], old: Mapping[str, Any]) -> Change:
    verdict = "noise"
    if row["p20"] > old["p80"]:
        verdict = "faster"
    elif row["p80"] < old["p20"]:
        verdict = "slower"
    return Change(subject, row["tiles_per_s"] / old["tiles_per_s"], verdict)
