"""runs/<start>-<8 hex>.json: the record of one run, written at its start and at its end."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.result import SlideOutcome
from melanoma_infer.runtime.output_files import output_error, write_output
from melanoma_infer.runtime.provenance import machine, versions
from melanoma_infer.runtime.utc import in_file_name, utc_now
from melanoma_infer.store.output import OutputFolder
from melanoma_infer.store.summary import row_of

RUNS = "runs"


class RunRecord:
    """The record of a run, open as long as it runs; a run that was killed stays "running".

    Args:
        out: the output folder.
        bundle: the model.
        numerics: what computes the numbers.
        remarks: what of it runs other than it should, without changing a number: why a run took longer.
        command: written unchanged, so it must contain no path and no patient value.
    """

    def __init__(
        self,
        out: OutputFolder,
        bundle: Bundle,
        numerics: Numerics,
        *,
        command: Sequence[str],
        remarks: Sequence[str] = (),
    ) -> None:
        self._bundle, self._numerics, self._argv, self._remarks = bundle, numerics, list(command), list(remarks)
        self._started = utc_now()
        self._slides: list[dict[str, Any]] = []
        self.path = out.path / RUNS / f"{in_file_name(self._started)}-{secrets.token_hex(4)}.json"

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise output_error(error) from error
        self._write("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._write("finished" if kind is None else "interrupted", finished=utc_now())

    def add(self, outcome: SlideOutcome) -> None:
        """Record the outcome of a slide."""
        self._slides.append(row_of(outcome, self._bundle, self._numerics) | {"skipped": outcome.skipped})

    def _write(self, state: str, finished: str | None = None) -> None:
        run = {
            "state": state,
            "started": self._started,
            "finished": finished,
            "versions": versions(),
            "machine": machine(),
            "bundle": {"name": self._bundle.name, "digest": self._bundle.digest},
            "numerics": vars(self._numerics),
            "remarks": self._remarks,
            "argv": self._argv,
            "slides": self._slides,
        }
        write_output(self.path, (json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())
