"""The records of a watched folder: which slides are done, failed or given up, and which were tried how often.

One file a slide, in `done/`, `failed/` or `dead-letter/`; one that was begun and has not ended is in `attempts/`. Only
the watcher that holds a slide's lease writes its records. To have a slide scored again, remove its record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from melanoma_infer.runtime.output_files import output_error, write_output

End = Literal["done", "failed", "dead-letter"]
ATTEMPTS = "attempts"


@dataclass(frozen=True)
class Attempt:
    """How often a slide was begun, and what is known of the last time."""

    number: int = 0
    not_before_s: float = 0.0
    """When it may be tried again, in seconds since 1970 (UTC)."""
    exit_code: int = 0
    message: str = ""


class Ledger:
    """The records in a folder, which all watchers share; made if it does not exist.

    Raises:
        OutputError: the folder cannot be written; so does every method that writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            for name in (*get_args(End), ATTEMPTS):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error) from error

    def jobs(self, of: str) -> set[str]:
        """The jobs with a record in "done", "failed", "dead-letter" or "attempts"."""
        names = os.listdir(self._folder / of)
        return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}

    def ended(self) -> set[str]:
        """The jobs that nobody has to take."""
        return {job for end in get_args(End) for job in self.jobs(end)}

    def has_ended(self, job: str) -> bool:
        """Whether nobody has to take the job."""
        return any(self._file(end, job).exists() for end in get_args(End))

    def attempt(self, job: str) -> Attempt:
        """The last attempt; number 0 if there was none."""
        try:
            return Attempt(**json.loads(self._file(ATTEMPTS, job).read_bytes()))
        except FileNotFoundError:
            return Attempt()

    def note(self, job: str, attempt: Attempt) -> None:
        """Keep an attempt, before the slide is scored or when it is to be tried again."""
        if attempt.number:
            self._write(ATTEMPTS, job, asdict(attempt))
        else:
            self._forget(job)

    def end(self, job: str, end: End, record: Mapping[str, object]) -> None:
        """Keep how a job ended."""
        self._write(end, job, record)
        self._forget(job)

    def _write(self, place: str, job: str, record: Mapping[str, object]) -> None:
        write_output(self._file(place, job), (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())

    def _forget(self, job: str) -> None:
        try:
            self._file(ATTEMPTS, job).unlink(missing_ok=True)
        except OSError as error:
            raise output_error(error) from error

    def _file(self, place: str, job: str) -> Path:
        return self._folder / place / f"{job}.json"
