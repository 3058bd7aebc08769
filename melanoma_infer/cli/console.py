"""What commands share: printing results, notes and errors, and the patient options.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from melanoma_infer.errors import MminferError, UsageError
from melanoma_infer.runtime.privacy import printable, readable


@dataclass
class _Terminal:
    quiet: bool = False
    verbose: bool = False
    status: str = ""
    """The last line of the terminal, which the next print replaces."""


_terminal = _Terminal()


@contextmanager
def loudness(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """Within the block, print no notes if `quiet`, and details if `verbose`.

    Raises:
        UsageError: both.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other. Leave one of them out.")
    _terminal.quiet, _terminal.verbose = quiet, verbose
    try:
        yield
    finally:
        _terminal.quiet = _terminal.verbose = False
        clear_status()


def is_quiet() -> bool:
    """Whether only results and errors are printed."""
    return _terminal.quiet


def note(text: str) -> None:
    """Print something that is neither a result nor an error."""
    if not _terminal.quiet:
        say_error(text)


def detail(text: str) -> None:
    """Print something that is of interest only when something has to be found out."""
    if _terminal.verbose:
        say_error(text)


def say_error(text: str) -> None:
    """Print what went wrong."""
    clear_status()
    print(_printable(text), file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a result, at once: a program may wait for it."""
    clear_status()
    print(_printable(text), flush=True)


def show_status(text: str) -> None:
    """Show the text as the last line of the terminal, until the next one or the next print."""
    print(f"\r{text.ljust(len(_terminal.status))}", end="", file=sys.stderr, flush=True)
    _terminal.status = text


def clear_status() -> None:
    """Remove the line that `show_status` shows."""
    if _terminal.status:
        print(f"\r{' ' * len(_terminal.status)}\r", end="", file=sys.stderr, flush=True)
        _terminal.status = ""


def say_json(result: Mapping[str, Any], failure: MminferError | None = None) -> None:
    """Print a result as one line of JSON; if the command fails because of it, with the failure.

    A number that is not finite is null: JSON has no other word for it.
    """
    whole = {**result, **({} if failure is None else failed(failure.exit_code, str(failure)))}
    say(json.dumps(_finite(whole), allow_nan=False))


def failed(exit_code: int, message: str) -> dict[str, Any]:
    """What `--json` prints of a failure."""
    return {"exit_code": exit_code, "message": readable(message)}


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


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _printable(text: str) -> str:
    """The text, several lines of it perhaps, without characters that a terminal would obey."""
    return "\n".join(printable(line) for line in text.split("\n"))
