"""What commands share: printing results and notes, the progress bar, and the patient options.

Results go to stdout, notes and progress to stderr. Output to a pipe has no progress bar.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from melanoma_infer.errors import UsageError
from melanoma_infer.runtime.plural import plural as plural
from melanoma_infer.runtime.privacy import readable

if TYPE_CHECKING:
    from melanoma_infer.pipeline.request import Progress


def note(text: str) -> None:
    """Print something that is not a result."""
    print(_printable(text), file=sys.stderr)


def say(text: str) -> None:
    """Print a result."""
    print(_printable(text))


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows as text with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def patient_values(pairs: Sequence[str], **typed: str | None) -> dict[str, str]:
    """The patient options as one mapping from field to value.

    Raises:
        UsageError: a pair is not KEY=VALUE, or a field is given twice.
    """
    values = {name: value for name, value in typed.items() if value is not None}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError("--patient needs KEY=VALUE, and no = was given. An example: --patient braf=mutated")
        field = name.strip().lower()
        if field in values:
            raise UsageError(f"The patient field {field} is given more than once. Give it once.")
        values[field] = value
    return values


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A callback that draws a progress bar with tiles/s and time left; it does nothing unless stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tiles", total=None, rate="")

        def update(done: int, total: int) -> None:
            if done == 1:
                bar.reset(task, total=total)
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f} tiles/s" if speed else "")

        yield update


def _printable(text: str) -> str:
    """The text without control characters: a file name may contain them, and a terminal would obey them."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in readable(text))
