"""The command line, run in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from melanoma_infer.cli.app import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def run_main(*argv: object) -> Ended:
    """Run a command and say how it ended."""
    out, err = io.StringIO(), io.StringIO()
    with _argv("mminfer", *argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _code_of_main()
    return Ended(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _argv(*argv: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*map(str, argv)])
        yield


def _code_of_main() -> int:
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0
