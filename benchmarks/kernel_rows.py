"""Times one kernel on this machine and keeps its rows in results/kernels.csv; older rows of the same key give way."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.rows import write_rows
from mminfer_kernels.timing import Row, measure

RESULTS = Path(__file__).parent / "results" / "kernels.csv"
BATCHES = {"cpu": (1, 8), "cuda": (1, 32, 128)}


def add_rows(name: str) -> None:
    """Measure the kernel and every provider beside it, for each batch; print the rows and keep them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    preferred = torch.float16 if device == "cuda" else torch.float32
    dtype = preferred if preferred in catalogue.dtypes(name) else torch.float32
    new = [row for batch in BATCHES[device] for row in measure(name, Problem(dtype, batch), device)]
    for row in new:
        print(f"{row.name:18} {row.provider:10} {row.shape:14} {row.dtype:8} {row.median_ms:9.3f} ms  {row.device}")
    replaced = {row.key for row in new}
    write_rows(RESULTS, [*(row for row in _kept() if row.key not in replaced), *new])


def _kept() -> list[Row]:
    if not RESULTS.is_file():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return [Row(**{key: _value(key, text) for key, text in line.items()}) for line in csv.DictReader(file)]


def _value(key: str, text: str) -> str | float:
    return float(text) if key.endswith(("_ms", "_error")) else text


if __name__ == "__main__":
    sys.exit("Run one of the bench_*.py beside this file.")
