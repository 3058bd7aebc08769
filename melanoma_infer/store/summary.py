"""summary.csv: one row for each result and each failure of all runs over an output folder; rows are only ever added.

Of two rows with one folder the later counts. Text that a spreadsheet would compute has a single quote before it. A file
with other columns is moved to summary-<n>.csv.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import re
from collections.abc import Callable
from typing import Any

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import ModelCard
from melanoma_infer.engines.base import Numerics
from melanoma_infer.errors import OutputError
from melanoma_infer.reports.repeat_command import options_of_settings
from melanoma_infer.result import SlideOutcome, SlideResult
from melanoma_infer.runtime.files import why_not_written
from melanoma_infer.store.output import OutputFolder

SUMMARY = "summary.csv"
COLUMNS = (
    "id", "case_id", "digest", "folder", "started", "finished", "exit_code", "stage", "message", "verdict", "reasons",
    "malignant_score", "outcome", "outcome_score", "thickness_state", "thickness_mm", "thickness_low_mm",
    "thickness_high_mm", "evaluable_fraction", "bundle", "numerics", "settings", "rescored_from", "seconds",
)  # fmt: skip
_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
"""How texts begin that spreadsheets compute. Those with quotes before it get one more, so that one can be removed."""


class Summary:
    """The summary of an output folder, to which several runs may add rows.

    Args:
        out: the output folder.
        tell_moved: called with the new name of a file that had other columns.
    """

    def __init__(self, out: OutputFolder, tell_moved: Callable[[str], None] = lambda _name: None) -> None:
        self._out, self._file, self._tell_moved = out, out.path / SUMMARY, tell_moved
        self._made: set[tuple[str, str]] | None = None

    def add(self, outcome: SlideOutcome, bundle: Bundle, numerics: Numerics) -> None:
        """Add the row of an outcome; a slide that was finished before gets one only if that very result has none.

        Raises:
            OutputError: the file cannot be written; what it held before is unchanged.
        """
        row = {column: _as_text(value) for column, value in row_of(outcome, bundle, numerics).items()}
        try:
            with self._out.alone():
                self._move_if_columns_differ()
                if not (outcome.skipped and (row["folder"], row["started"]) in self._made_before()):
                    self._append(row)
        except OSError as error:
            raise OutputError(
                f"{SUMMARY} cannot be written: {why_not_written(error)} Close it if another program has it open."
            ) from error

    def _append(self, row: dict[str, Any]) -> None:
        """Write the row whole, or leave the file as it was."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if not self._file.exists():
            writer.writeheader()
        writer.writerow(row)
        # Without a buffer: what is left in one would be written when the file is closed, after it was cut back.
        with self._file.open("ab+", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            line = _missing_newline(file, length) + text.getvalue().encode()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(length)
                raise

    def _made_before(self) -> set[tuple[str, str]]:
        """Folder and start of the results that have a row; read once, because a run may skip many slides."""
        if self._made is None:
            self._made = set()
            if self._file.exists():
                with self._file.open(newline="", encoding="utf-8", errors="replace") as file:
                    self._made = {(row["folder"], row["started"]) for row in csv.DictReader(file)}
        return self._made

    def _move_if_columns_differ(self) -> None:
        try:
            with self._file.open(newline="", encoding="utf-8", errors="replace") as file:
                if next(csv.reader(file), None) == list(COLUMNS):
                    return
        except FileNotFoundError:
            return
        number = 1
        while (moved := self._file.with_name(f"summary-{number}.csv")).exists():
            number += 1
        self._file.rename(moved)
        self._tell_moved(moved.name)


def row_of(outcome: SlideOutcome, bundle: Bundle, numerics: Numerics) -> dict[str, Any]:
    """The row of an outcome, by column; what a failed slide does not have is empty."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {
        "id": outcome.id,
        "case_id": outcome.case_id or "",
        "digest": outcome.digest or "",
        "folder": outcome.folder.name if outcome.folder else "",
        "started": outcome.started,
        "finished": outcome.finished,
        "exit_code": outcome.exit_code,
        "stage": outcome.stage,
        "message": outcome.message,
        "bundle": f"{bundle.name} {bundle.digest[:12]}",
        "numerics": str(numerics),
        "settings": outcome.settings,
        "seconds": round(outcome.seconds, 3),
    }
    if (result := outcome.result) is not None:
        row |= {
            "verdict": result.verdict,
            "reasons": " ".join(reason.code for reason in result.reasons),
            "malignant_score": _blank(result.malignant_score),
            "outcome": result.outcome,
            "outcome_score": _blank(result.outcome_score),
            "thickness_state": result.thickness.state,
            "thickness_mm": _blank(result.thickness.mm),
            "thickness_low_mm": _blank(result.thickness.low_mm),
            "thickness_high_mm": _blank(result.thickness.high_mm),
            "evaluable_fraction": round(result.evaluable_fraction, 6),
            "settings": _settings(result, bundle.card),
            "rescored_from": result.run.rescored_from or "",
        }
    return row


def _settings(result: SlideResult, card: ModelCard) -> str:
    """The options that differ from the card's, such as "tile-um=256 aggregate=max"."""
    words = [word.removeprefix("--") for word in options_of_settings(result, card)]
    return " ".join(f"{name}={value}" for name, value in zip(words[::2], words[1::2], strict=True))


def _as_text(value: Any) -> Any:
    """The value; a text that begins a formula has a single quote before it."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _missing_newline(file: io.FileIO, length: int) -> bytes:
    """The end of the last line, where another program or a full disk left it out."""
    if not length:
        return b""
    file.seek(length - 1)
    return b"" if file.read(1) == b"\n" else b"\n"


def _blank(value: float | None) -> float | str:
    return "" if value is None else value
