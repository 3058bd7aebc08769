"""What a scan session costs: memory, the pushing thread's time, and how far its rows are from those of a pyramid.

    python benchmarks/scan_session.py SLIDE.svs [--rows 80000] [--save benchmarks/results/scan-session.csv]

SLIDE is pyramidal, such as one of `mminfer phantom slide`. Each part runs in a process of its own. The scanner is
drawn: strips of 100,000 px with tissue in two thirds of their width, pushed from top to bottom. The parts that time
pushing have an engine that answers at once with the same numbers, so that only the session is timed. Memory is measured
with the demo model on openvino.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer import ScanOptions, Scorer, Settings, open_bundle, open_slide, score_slide
from melanoma_infer.geometry import RectPx
from melanoma_infer.pipeline.session import ScanSession
from melanoma_infer.records import TileResult

WIDTH, STRIP_ROWS = 100_000, 2_048
MEBIBYTE = 1 << 20
Row = dict[str, Any]


def main() -> None:
    """Run every part in a process of its own, print the rows, and save them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--rows", type=int, default=80_000, help="height of the drawn scan in px")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--part", choices=PARTS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(PARTS[asked.part](asked)))
        return
    rows: list[Row] = []
    for part in PARTS:
        command = [sys.executable, __file__, str(asked.slide), "--rows", str(asked.rows), "--part", part]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(ended.stderr)
        rows += json.loads(ended.stdout.splitlines()[-1])
    for row in rows:
        print(f"{row['part']:14} {row['measure']:58} {row['value']:>12} {row['unit']}")
    if asked.save:
        with asked.save.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def memory(asked: argparse.Namespace) -> list[Row]:
    """A scan of 100,000 px × `rows` at 0.25 µm/px with tiles of 3 mm on the demo model."""
    scorer, strip = Scorer(open_bundle("demo"), "openvino"), drawn_strip()
    scorer.engine.infer(scorer.bundle.golden.tiles)  # the engine has its own memory from here on
    before = _resident(reset=True)
    scan = scorer.session(0.25, (WIDTH, asked.rows))
    pushing = _push_all(scan, strip, asked.rows)
    held = scan.progress.memory_bytes
    peak = _resident() - before
    clock = perf_counter()
    scan.running()
    running = perf_counter() - clock
    result = scan.close()
    tiles = len(result.tiles)
    return [
        _row("memory", f"100,000 × {asked.rows:,} px, 3 mm tiles: peak over the engine's", peak / MEBIBYTE, "MiB"),
        _row("memory", "the same with running() and close()", (_resident() - before) / MEBIBYTE, "MiB"),
        _row("memory", "counted by the session after the last strip", held / MEBIBYTE, "MiB"),
        _row("memory", f"pushing, {tiles} tiles, with the engine's answers", pushing, "s"),
        _row("memory", "running() at the end", running, "s"),
    ]


def small_tiles(asked: argparse.Namespace) -> list[Row]:
    """Pushing at 0.5 µm/px with tiles of 512 px, each pixel of the scan one of the model's."""
    return _cost("512 px tiles", 0.5, Settings(tile_um=256.0), rows=8 * STRIP_ROWS)


def large_tiles(asked: argparse.Namespace) -> list[Row]:
    """Pushing at 0.25 µm/px with tiles of 3 mm."""
    return _cost("3 mm tiles", 0.25, Settings(), rows=16 * STRIP_ROWS)


def _cost(name: str, mpp_um: float, settings: Settings, *, rows: int) -> list[Row]:
    scorer, strip = _without_engine(), drawn_strip()
    scan = scorer.session(mpp_um, (WIDTH, rows), settings=settings, options=ScanOptions(waiting_tiles=1 << 20))
    everything, pushed = process_time(), _push_all(scan, strip, rows, clock=thread_time)
    scorer.finish_sessions()
    everything = process_time() - everything
    tiles, mpx = scan.progress.tiles_scored, WIDTH * rows / 1e6
    scan.cancel()
    found = [
        _row(name, "pixels pushed per second of the pushing thread's core", mpx / pushed, "Mpx/s"),
        _row(name, "pixels per second of a core, resizing included", mpx / everything, "Mpx/s"),
    ]
    if mpp_um == 0.5:
        per_tile_px = 512**2 / 1e6
        found += [
            _row(name, "share of a core for pushing 30 tiles/s", 30 * per_tile_px / (mpx / pushed), "cores"),
            _row(name, f"the same with resizing ({tiles} tiles)", 30 * per_tile_px / (mpx / everything), "cores"),
        ]
    return found


def pyramid(asked: argparse.Namespace) -> list[Row]:
    """A pyramidal slide, streamed from its level 0, against the file."""
    rows = []
    scorer = Scorer(open_bundle("demo"), "openvino")
    for name, settings in (("3 mm tiles", Settings()), ("256 µm tiles", Settings(tile_um=256.0))):
        file = score_slide(asked.slide, scorer, settings=settings)
        with open_slide(asked.slide) as slide:
            size, scale = slide.facts.size_l0, slide.facts.scale
            assert scale is not None
            options = ScanOptions(is_phantom=slide.facts.is_phantom)
            mpp_um = (scale.x_um, scale.y_um)
            scan = scorer.session(mpp_um, (size.width, size.height), settings=settings, options=options)
            for top in range(0, size.height, STRIP_ROWS):
                strip = slide.read_rgb(0, RectPx(0, top, size.width, min(STRIP_ROWS, size.height - top)))
                assert strip is not None
                scan.push(strip.pixels, 0, top)
        streamed = scan.close()
        ours, theirs = (
            dict(zip(zip(t.minx.tolist(), t.miny.tolist(), strict=True), t.probabilities, strict=True))
            for t in (streamed.tiles, file.tiles)
        )
        both = ours.keys() & theirs.keys()
        apart = [float(np.abs(ours[at] - theirs[at]).max()) for at in both]
        scores = abs((streamed.malignant_score or 0) - (file.malignant_score or 0))
        what = f"level 0 streamed against level {file.geometry.level}, {name}"
        rows += [
            _row("pyramid", f"{what}: tiles in both", len(both), "tiles"),
            _row("pyramid", f"{what}: tiles in one only", len(ours.keys() ^ theirs.keys()), "tiles"),
            _row("pyramid", f"{what}: largest |Δp|", max(apart), ""),
            _row("pyramid", f"{what}: mean |Δp|", float(np.mean(apart)), ""),
            _row("pyramid", f"{what}: |Δ score of the slide|", scores, ""),
        ]
    return rows


PARTS = {"memory": memory, "small_tiles": small_tiles, "large_tiles": large_tiles, "pyramid": pyramid}


def drawn_strip() -> NDArray[np.uint8]:
    """100,000 × 2,048 px: background, two thirds tissue."""
    rng = np.random.default_rng(1)
    strip = np.empty((STRIP_ROWS, WIDTH, 3), np.uint8)
    block = rng.integers(-12, 13, (STRIP_ROWS, 2_000, 1))
    for left in range(0, WIDTH, 2_000):
        colour = (205, 140, 180) if WIDTH // 6 <= left < WIDTH * 5 // 6 else (238, 238, 238)
        strip[:, left : left + 2_000] = np.array(colour) + block
    return strip


def _push_all(scan: ScanSession, strip: NDArray[np.uint8], rows: int, *, clock: Any = perf_counter) -> float:
    """Push strips from top to bottom; the time it took by a clock."""
    started = clock()
    for top in range(0, rows, STRIP_ROWS):
        scan.push(strip[: rows - top], 0, top)
    return float(clock() - started)


class _Instant(Scorer):
    """A scorer whose engine answers every tile with the first golden outputs, at once."""

    def infer_each(self, reads: Any) -> Iterator[TileResult]:
        outputs = {name: values[0] for name, values in self.bundle.golden.outputs.items()}
        for read in reads:
            yield TileResult(read.tile, outputs, read.padded_fraction)

    def finish_sessions(self) -> None:
        """Wait until no tile is left."""
        while self._queue.is_running:
            pass


def _without_engine() -> _Instant:
    return _Instant(open_bundle("demo"), "openvino")


def _resident(*, reset: bool = False) -> int:
    """The largest resident memory since it was reset; when it is, the memory now. Bytes; Linux."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


def _row(part: str, measure: str, value: float, unit: str) -> Row:
    return {"part": part, "measure": measure, "value": f"{value:.4g}", "unit": unit}


if __name__ == "__main__":
    main()
