"""The command line, run in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from melanoma_infer.cli.app import main


@dataclass(frozen=True)
class Ended:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def mminfer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; returns its exit code and output."""

    def run(*argv: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mminfer", *map(str, argv)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def result_of() -> Callable[[Path], dict[str, Any]]:
    """The one result.json under an output folder."""

    def read(out: Path) -> dict[str, Any]:
        (path,) = out.glob("*/result.json")
        loaded: dict[str, Any] = json.loads(path.read_text())
        return loaded

    return read
