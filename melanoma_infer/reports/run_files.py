"""run.json and summary.csv: the record of a run over one or many slides.

In summary.csv, text that a spreadsheet would compute has a single quote before it; in run.json it is unchanged.
A slide's row is added to summary.csv as soon as the slide is done. run.json is written at the start and at the end of
the run.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.errors import OutputError
from melanoma_infer.reports.output import write_atomically
from melanoma_infer.result import SlideOutcome
from melanoma_infer.runtime.provenance import machine, versions

COLUMNS = (
    "id", "case_id", "exit_code", "verdict", "reasons", "malignant_score", "outcome", "outcome_score",
    "thickness_state", "thickness_mm", "thickness_low_mm", "thickness_high_mm", "evaluable_fraction", "bundle",
    "numerics", "folder", "seconds",
)  # fmt: skip
_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
"""How texts begin that spreadsheets compute. Those with quotes before it get one more, so that one can be removed."""


class RunFiles:
    """The files of a run, open as long as it runs.

    `command` is written unchanged, so it must contain no path and no patient value.
    """

    def __init__(self, out: Path, bundle: Bundle, numerics: Numerics, *, command: Sequence[str]) -> None:
        self._out, self._bundle, self._numerics = out, bundle, numerics
        self._argv = list(command)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._write_run("running")
        try:
            self._file = (self._out / "summary.csv").open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"summary.csv cannot be written ({error.strerror}). Close it if another program has it open."
            ) from error
        self._csv = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._csv.writeheader()
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._file.close()
        self._write_run("finished" if kind is None else "interrupted")

    def add(self, outcome: SlideOutcome) -> None:
        """Record the outcome of a slide.

        Raises:
            OutputError: summary.csv cannot be written.
        """
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {
            "id": outcome.id,
            "case_id": outcome.case_id or "",
            "exit_code": outcome.exit_code,
            "bundle": f"{self._bundle.name} {self._bundle.digest[:12]}",
            "numerics": str(self._numerics),
            "folder": outcome.folder.name if outcome.folder else "",
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
            }
        self._rows.append(row | {"stage": outcome.stage, "message": outcome.message, "skipped": outcome.skipped})
        try:
            self._csv.writerow({column: _as_text(value) for column, value in row.items()})
            self._file.flush()
        except OSError as error:
            raise OutputError(f"summary.csv cannot be written ({error.strerror}). Free some space.") from error

    def _write_run(self, state: str) -> None:
        run = {
            "state": state,
            "versions": versions(),
            "machine": machine(),
            "bundle": {"name": self._bundle.name, "digest": self._bundle.digest},
            "numerics": vars(self._numerics),
            "argv": self._argv,
            "slides": self._rows,
        }
        write_atomically(self._out / "run.json", (json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())


def _blank(value: float | None) -> float | str:
    return "" if value is None else value


def _as_text(value: Any) -> Any:
    """The value; a text that begins a formula has a single quote before it."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
