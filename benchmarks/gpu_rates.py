"""What a GPU does, in one run: the bare network, the engine, and a whole slide, for every engine and precision.

    python benchmarks/gpu_rates.py SLIDE [--bundle build/full-width.mminfer] [--save benchmarks/results/gpu-rates.csv]

`bare` is the captured network alone, launched again and again on what is in GPU memory, for each batch size; `engine`
also uploads tiles and downloads outputs; `slide` is from opening the file to the last report. A row whose golden
outputs are beyond the tolerance says so, and the script ends with 1. It has not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from melanoma_infer import Scorer, Settings, open_bundle
from melanoma_infer.bench.slide import time_slide
from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import ON_GPU
from melanoma_infer.engines.device import Stream
from melanoma_infer.errors import EngineUnavailableError, ParityError
from melanoma_infer.tolerances import PRECISIONS

ROUNDS = 3
SECONDS = 1.0
"""Of launches in a round."""
LAUNCHES = 8
"""Between two waits of the host."""


def main() -> int:
    """Print and save a row for every engine and precision of the bundle that this machine has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args()
    rows = []
    for row in rows_of(open_bundle(asked.bundle), asked.slide):
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        rows.append(row)
    if asked.save and rows:
        with asked.save.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(max(rows, key=len)), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return int(not rows or not all(row["within_tolerance"] for row in rows))


def rows_of(bundle: Bundle, slide: Path) -> Iterator[dict[str, Any]]:
    """A row for each engine and precision that loads; the others are named, with the reason."""
    for engine, precision in product(ON_GPU, PRECISIONS):
        try:
            scorer = Scorer(bundle, engine=engine, precision=precision)
        except EngineUnavailableError as error:
            print(f"{engine} {precision}: {error}", file=sys.stderr)
            continue
        except ParityError as error:
            yield {"engine": engine, "precision": precision, "within_tolerance": False, "remarks": str(error)}
            continue
        bare = bare_rates(scorer.engine)
        timing = time_slide(slide, scorer, Settings(), rounds=ROUNDS, engine_seconds=SECONDS)
        numerics = scorer.numerics
        row = {
            "gpu": numerics.device, "engine": engine, "version": numerics.version, "precision": precision,
            **{f"bare_{rows}": f"{rate:.1f}" for rows, rate in bare.items()},
            "engine_tiles_per_s": f"{timing.engine_only_tiles_per_s:.1f}",
            "slide_tiles_per_s": f"{timing.tiles_per_s:.1f}", "slide_tiles": timing.tiles,
            "share_of_engine": f"{timing.share_of_engine:.3f}", "p999_dp": f"{timing.p999_dp:.2g}",
            "within_tolerance": timing.within_tolerance, "remarks": "; ".join(scorer.engine.remarks),
        }  # fmt: skip
        yield row


def bare_rates(engine: Any) -> dict[int, float]:
    """Tiles/s of the network alone by batch size: medians over rounds, in which the batch sizes take turns."""
    slots = engine._runner._slots
    device, slot = slots.device, slots.at(0)
    programs = {rows: slots.program(slot, rows) for rows in slots.buckets}
    rates: dict[int, list[float]] = {rows: [] for rows in programs}
    for _ in range(ROUNDS):
        for rows, program in programs.items():
            device.synchronize(device.record(Stream.COMPUTE))
            started, launched = perf_counter(), 0
            while perf_counter() - started < SECONDS:
                for _ in range(LAUNCHES):
                    device.launch(program)
                device.synchronize(device.record(Stream.COMPUTE))
                launched += LAUNCHES
            rates[rows].append(launched * rows / (perf_counter() - started))
    return {rows: median(each) for rows, each in rates.items()}


if __name__ == "__main__":
    sys.exit(main())
