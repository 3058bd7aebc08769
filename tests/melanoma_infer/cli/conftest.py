"""The command line, run in this process, and one slide that it scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands_for_tests import Ended, run_main


@pytest.fixture(scope="session")
def mminfer() -> Callable[..., Ended]:
    """Run a command and say how it ended."""
    return run_main


@pytest.fixture(scope="session")
def scored_256(cmu: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the real slide, scored once with tiles of 256 µm. To be read, not written."""
    out = tmp_path_factory.mktemp("scored")
    assert run_main("score", cmu, "--out", out, "--tile-um", "256").code == 0
    return out


@pytest.fixture
def result_of() -> Callable[[Path], dict[str, Any]]:
    """The one result.json under an output folder."""

    def read(out: Path) -> dict[str, Any]:
        (path,) = out.glob("*/result.json")
        loaded: dict[str, Any] = json.loads(path.read_text())
        return loaded

    return read
