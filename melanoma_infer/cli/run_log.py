"""`--log-json`: what happens in a run, one event per line, for programs that watch runs.

A line has the UTC time, a level, the event and, where it is about a slide, that slide's id. No line has a path or a
patient's value: messages about what was typed, which may hold either, are printed on the terminal alone.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma_infer.cli.console import say_error
from melanoma_infer.errors import BundleError, MminferError, OutputError, PatientValueError, UsageError
from melanoma_infer.runtime.files import why_not_written

if TYPE_CHECKING:
    from melanoma_infer.result import SlideOutcome

NOT_LOGGED = (UsageError, PatientValueError, BundleError, OutputError)
"""Errors whose messages may repeat what was typed."""


class RunLog:
    """The log of one run; without a file, nothing is kept.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._logger = logging.Logger("mminfer")
        self._handler: logging.Handler = logging.NullHandler()
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)  # perhaps the output folder, which is made later
                self._handler = _Lines(file, encoding="utf-8")
            except OSError as error:
                raise OutputError(f"--log-json cannot be written: {why_not_written(error)}") from error
            self._handler.setFormatter(_JsonFormatter())
        self._logger.addHandler(self._handler)

    def event(self, event: str, *, level: int = logging.INFO, slide: str = "", **facts: object) -> None:
        """Write an event. The caller vouches that no fact is a path or a patient's value."""
        self._logger.log(level, event, extra={"facts": ({"slide": slide} if slide else {}) | facts})

    def slide(self, outcome: SlideOutcome) -> None:
        """Write how a slide ended."""
        if outcome.result is None:
            facts: dict[str, Any] = {"stage": outcome.stage, "exit_code": outcome.exit_code, "message": outcome.message}
            self.event("slide-failed", level=logging.ERROR, slide=outcome.id, **facts)
        elif outcome.skipped:
            self.event("slide-skipped", slide=outcome.id)
        else:
            seconds, tiles = round(outcome.seconds, 3), len(outcome.result.tiles.minx)
            timings_ms = outcome.result.run.timings_ms
            self.event("slide-scored", slide=outcome.id, tiles=tiles, seconds=seconds, timings_ms=timings_ms)

    def failure(self, error: BaseException) -> None:
        """Write how a run ended that raised this."""
        code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
        if isinstance(error, MminferError):
            message = {} if isinstance(error, NOT_LOGGED) else {"message": str(error)}
            self.event("run-failed", level=logging.ERROR, exit_code=code, error=type(error).__name__, **message)
        elif not isinstance(error, Exception):
            self.event("run-stopped", level=logging.WARNING, exit_code=code)
        elif hasattr(error, "exit_code"):  # typer.Exit
            self.event("run-ended", exit_code=code)
        else:
            self.event("run-failed", level=logging.CRITICAL, exit_code=code, error=type(error).__name__)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


@contextmanager
def run_log(file: Path | None) -> Iterator[RunLog]:
    """The log of the run in the block: its end is written, too, however it ends.

    Raises:
        OutputError: the file cannot be written.
    """
    from melanoma_infer.runtime.provenance import versions

    log = RunLog(file)
    try:
        log.event("run-started", versions=versions())
        yield log
        log.event("run-ended", exit_code=0)
    except BaseException as error:
        log.failure(error)
        raise
    finally:
        log.close()


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts: dict[str, Any] = record.facts  # type: ignore[attr-defined] # from `extra`
        return json.dumps({"time": time, "level": record.levelname.lower(), "event": record.msg, **facts})


class _Lines(logging.FileHandler):
    """Appends, and flushes each line. A log that cannot be written any more is told once, and the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        cause = sys.exc_info()[1]
        why = why_not_written(cause) if isinstance(cause, OSError) else f"{type(cause).__name__}."
        say_error(f"--log-json cannot be written any more: {why}")
        self.setLevel(logging.CRITICAL + 1)
