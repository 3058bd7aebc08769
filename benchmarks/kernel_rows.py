"""Times one kernel on this machine and saves its rows in results/kernels.csv, replacing rows of the same key."""

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
    """Measure the kernel and every other provider for each batch size; print and save the rows."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    preferred = torch.float16 if device == "cuda" else torch.float32
    dtype = preferred if preferred in catalogue.dtypes(name) else torch.float32
    new = [row for batch in BATCHES[device] for row in measure(name, Problem(dtype, batch), device)]
    for row in new:
        print(f"{row.name:18} {row.provider:10} {row.shape:14} {row.dtype:8} {row.median_ms:9.3f} ms  {row.device}")
    replaced = {row.key for row in new}
    write_rows(RESULTS, [*(row for row in _saved_rows() if row.key not in replaced), *new])


def _saved_rows() -> list[Row]:
    if not RESULTS.is_file():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    numbers = ("_ms", "_error")
    return [
        Row(**{key: float(text) if key.endswith(numbers) else text for key, text in line.items()}) for line in lines
    ]


if __name__ == "__main__":
    sys.exit("This file is a library. Run one of the bench_*.py files in this folder.")
