"""What the host needs to feed a GPU: the real reading, ring, batching and scoring around a device that only sleeps.

    python benchmarks/fed_pipeline.py [--save benchmarks/results/fed-pipeline.csv]

The device takes as long as a GPU of the given rate and answers with the golden outputs. Tiles of 512 px are ready-made:
a reader decodes nothing, and writes one byte of its frame, which says how the device must answer. So what is timed is
the host's own work: threads, queues, frames, batches, the check of the outputs and the tile table.

Host time is CPU time of all threads, the best of several runs, so that other work on the machine changes it little; it
includes the fake device's own, about 2 µs a tile. Rates are wall-clock: measure them on a quiet machine.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, sleep, thread_time
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from melanoma_infer import Scorer, open_bundle
from melanoma_infer.engines import EngineChoice
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.engines.batching import BatchRunner
from melanoma_infer.engines.device import Stream
from melanoma_infer.engines.frames import Frame, Frames
from melanoma_infer.engines.ring import Given
from melanoma_infer.engines.slots import BUCKETS
from melanoma_infer.geometry import RectPx
from melanoma_infer.pipeline import scorer as scorer_module
from melanoma_infer.records import ReadTile, Tile, TileTable
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.scoring.tile_table import tile_table
from melanoma_infer.tiles.read_plan import ReadPlan
from melanoma_infer.tiles.reading import TileStream

RATES = (1_000, 7_000)
"""Tiles/s of the device."""
SECONDS = 3
"""How long the device works in a run."""
RUNS = 5
GPUS = {"H100": (6_000, 7_500), "L4": (600, 900)}
"""Realistic tiles/s of 512 px through a ResNet-50 in fp16: estimates from data sheets, not measured."""
BATCH = BUCKETS[-1]


def main() -> None:
    """Time each rate, print rows and what follows from them, and save the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the device's work in a run")
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args()
    rows = [row_of(rate, timed_runs(rate, asked.seconds, asked.runs)) for rate in RATES]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print("\n".join(arithmetic(min(float(row["host_us_per_tile"]) for row in rows))))
    if asked.save:
        with asked.save.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


class SleepingDevice:
    """A `Device` of a rate whose work is a date in the future; a tile's first byte is the golden row of its outputs."""

    def __init__(self, tiles_per_s: float, golden: Outputs) -> None:
        self._tiles_per_s, self._golden = tiles_per_s, golden
        self._until = dict.fromkeys(Stream, 0.0)
        self.busy_s = 0.0

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Ordinary memory."""
        return np.zeros(shape, dtype)

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Ordinary memory; of each tile for its first byte alone."""
        return np.zeros(shape if dtype is np.float32 else shape[:1], dtype)

    def program(self, tiles: Any, outputs: Mapping[str, Any], rows: int) -> tuple[Any, Mapping[str, Any], int]:
        """What `launch` needs."""
        return tiles, outputs, rows

    def upload(self, source: NDArray[Any], target: NDArray[Any], first: int = 0) -> None:
        """Take the first byte of each tile: the device's own memory is not the host's work."""
        target[first : first + len(source)] = source[:, 0, 0, 0]

    def launch(self, program: tuple[Any, Mapping[str, Any], int]) -> None:
        """Be busy for as long as a GPU of this rate, from when the last batch is done."""
        tiles, outputs, rows = program
        for name, output in outputs.items():
            np.take(self._golden[name], tiles[:rows], axis=0, out=output[:rows], mode="clip")
        seconds = rows / self._tiles_per_s
        self._until[Stream.COMPUTE] = self.record(Stream.COMPUTE) + seconds
        self.busy_s += seconds

    def download(self, source: NDArray[Any], target: NDArray[Any]) -> None:
        """Copy at once; nobody looks before the event."""
        target[...] = source[: len(target)]

    def record(self, stream: Stream) -> float:
        """When the stream's work is done."""
        return max(self._until[stream], perf_counter())

    def wait(self, stream: Stream, event: float) -> None:
        """Begin later work after the event."""
        self._until[stream] = max(self._until[stream], event)

    def synchronize(self, event: float) -> None:
        """Sleep until then."""
        sleep(max(0.0, event - perf_counter()))

    def release(self) -> None:
        """Nothing."""


class SleepingEngine:
    """A GPU engine in all but its device."""

    buckets, remarks = BUCKETS, ()

    def __init__(self, tiles_per_s: float, golden: Outputs, tile_px: int) -> None:
        self.device = SleepingDevice(tiles_per_s, golden)
        shapes = {name: values.shape[1:] for name, values in golden.items()}
        self._runner = BatchRunner(self.device, tile_px=tile_px, outputs=shapes)
        self.frames = Frames(self.device.pinned)
        self.numerics = Numerics("tensorrt", "asleep", "fp32", "none")
        self.tiles_at_once = self._runner.tiles_at_once

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """As every engine."""
        return self._runner.infer(tiles)

    def infer_each(self, tiles: Iterable[Given]) -> Iterator[Outputs]:
        """As every GPU engine."""
        return self._runner.infer_each(tiles)


class ReadyTiles(TileStream):
    """A stream of tiles that need no reading: the frame's old content, but for the golden row in its first byte."""

    golden_rows: int

    def _read(self, tile: Tile, frame: Any = None) -> ReadTile:
        assert isinstance(frame, Frame)
        frame.memory[0] = tile.index % self.golden_rows
        return ReadTile(tile, frame.memory.reshape(self._reading.tile_px, self._reading.tile_px, 3), frame=frame)


@dataclass(frozen=True)
class Run:
    """One run: tiles, wall-clock seconds of the stream, CPU seconds, and where the engine's thread waited."""

    tiles: int
    readers: int
    wall_s: float
    host_s: float
    """CPU time of all threads, with the tile table."""
    engine_thread_s: float
    """That of the thread that feeds the device, without the tile table."""
    table_s: float
    wait_s: float
    """The engine's thread waited for tiles."""
    busy_s: float
    """The device computed."""

    @property
    def limiting(self) -> str:
        """What the run took most of its time for."""
        if self.busy_s >= 0.95 * self.wall_s:
            return "device"
        return "readers' queue" if self.wait_s > self.wall_s / 2 else "engine's thread"


def timed_runs(tiles_per_s: float, seconds: float, runs: int) -> list[Run]:
    """Several runs after a first one, in which memory is touched for the first time."""
    bundle = open_bundle("demo")
    engine = SleepingEngine(tiles_per_s, bundle.golden.outputs, bundle.card.tile_px)
    with patch.object(scorer_module, "load_engine", lambda *_, **__: EngineChoice(engine, ())):  # type: ignore[arg-type]
        scorer = Scorer(bundle)
    return [timed_run(scorer, engine.device, tiles_per_s, seconds) for _ in range(runs + 1)][1:]


def timed_run(scorer: Scorer, device: SleepingDevice, tiles_per_s: float, seconds: float) -> Run:
    """One run over a slide's worth of tiles, whose answers are checked."""
    bundle, tile_px = scorer.bundle, scorer.card.tile_px
    count = max(1, round(tiles_per_s * seconds / BATCH)) * BATCH
    rects = (RectPx(tile_px * (i % 300), tile_px * (i // 300), tile_px, tile_px) for i in range(count))
    tiles = [Tile(i, rect, 1.0, 0.0) for i, rect in enumerate(rects)]
    watch, plan = Stopwatch(), ReadPlan(0, 1.0, 1, tile_px, False)
    with ReadyTiles(Path(), None, plan, tiles, scorer.feed, watch=watch) as reads:  # type: ignore[arg-type]
        reads.golden_rows = len(bundle.golden.tiles)
        wall, host, thread, busy = perf_counter(), process_time(), thread_time(), device.busy_s
        results = list(scorer.infer(reads, watch=watch))
        wall, thread, table_s = perf_counter() - wall, thread_time() - thread, thread_time()
        table = tile_table(results, bundle)
        table_s, host = thread_time() - table_s, process_time() - host
    check(table, bundle.golden.outputs)
    wait_s, busy_s = watch.spent_ms["wait"] / 1000, device.busy_s - busy
    return Run(count, scorer.feed.readers, wall, host, thread, table_s, wait_s, busy_s)


def check(table: TileTable, golden: Outputs) -> None:
    """Raise unless every tile has its own golden outputs."""
    expected = golden["probabilities"][np.arange(len(table)) % len(golden["probabilities"])]
    if not np.array_equal(table.probabilities, expected.astype(np.float64)):
        raise SystemExit("A tile has another tile's outputs: nothing is timed.")


def row_of(tiles_per_s: float, runs: list[Run]) -> dict[str, str]:
    """The row of a rate: the best CPU time and the best rate of several runs."""
    best = max(runs, key=lambda run: run.tiles / run.wall_s)
    rate = best.tiles / best.wall_s

    def us(name: str) -> str:
        return f"{min(getattr(run, name) / run.tiles for run in runs) * 1e6:.1f}"

    return {
        "device_tiles_per_s": f"{tiles_per_s}",
        "tiles": f"{best.tiles}",
        "readers": f"{best.readers}",
        "tiles_per_s": f"{rate:.0f}",
        "share_of_device": f"{rate / tiles_per_s:.3f}",
        "limiting_step": best.limiting,
        "host_us_per_tile": us("host_s"),
        "engine_thread_us_per_tile": us("engine_thread_s"),
        "tile_table_us_per_tile": us("table_s"),
    }


def arithmetic(host_us: float) -> Iterator[str]:
    """What the host's time means for real GPUs, as sentences."""
    most = 1e6 / host_us
    yield (
        f"Arithmetic, no GPU was timed: Python runs one thread at a time, so {host_us:.1f} µs a tile are at most "
        f"{most:,.0f} tiles/s, if cores decode that many."
    )
    for name, rates in GPUS.items():
        shares = " to ".join(f"{min(1.0, most / rate):.0%}" for rate in reversed(rates))
        yield f"Arithmetic: {shares} of an {name} at {rates[0]:,} to {rates[1]:,} tiles/s (estimated)."


if __name__ == "__main__":
    main()
