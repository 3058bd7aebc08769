"""What is kept in an output folder, as tests compare it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from melanoma_infer.reports import result_json
from melanoma_infer.result import comparable

TIMED = "report.html"
"""It shows when and how long: no two runs give the same bytes."""


def result_folders(out: Path) -> list[Path]:
    """The folders of results, sorted by name."""
    return sorted(path.parent for path in out.glob("[!.]*/result.json"))


def same_bytes(folder: Path) -> dict[str, bytes]:
    """The files of a result that every run gives again, by name; result.json without its block `run`."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != TIMED}
    result = result_json.read(folder / "result.json")
    assert result is not None
    return files | {"result.json": json.dumps(comparable(result)).encode()}


def kept(out: Path) -> dict[str, dict[str, bytes]]:
    """The same bytes of all results, by the folder's name without the end that is each output folder's own."""
    return {folder.name.rpartition("-")[0]: same_bytes(folder) for folder in result_folders(out)}


def summary_rows(out: Path) -> list[dict[str, str]]:
    """The rows of summary.csv."""
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_records(out: Path) -> list[dict[str, Any]]:
    """The records of all runs, oldest first."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "runs").glob("*.json"))]
