"""Times a slide from file to report, in turns with the engine alone on tiles of the same slide."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bench.chart import Bar, chart
from melanoma_infer.engines import ON_GPU
from melanoma_infer.engines.golden import check_golden
from melanoma_infer.errors import UsageError
from melanoma_infer.pipeline.flow import score_slide
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.reports.writing import write_reports
from melanoma_infer.result import SlideResult
from melanoma_infer.runtime.cores import reader_count
from melanoma_infer.runtime.plural import plural
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.choice import ReaderChoice
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tiles

BESIDE = ("read", "decode", "resize")
"""Stages of the reading threads, which run concurrently with IN_TURN."""
IN_TURN = ("open", "tissue", "wait", "infer", "score", "gallery", "write")
"""The other stages, one after the other; in `wait` the engine waits for pixels."""
HELD_TILES = 32
"""Number of the slide's tiles that are kept in memory to time the engine alone."""
TILES_MIN = 20
"""Below this a slide's time is mostly that of opening it and of drawing its reports, and says nothing about others."""
ENGINE_SECONDS = 2.0
"""Duration of each turn of the engine alone."""


@dataclass(frozen=True)
class SlideTiming:
    """How long a slide takes after a warm-up: medians over rounds, with 20th and 80th percentile."""

    reader: str
    engine: str
    precision: str
    threads: int
    rounds: int
    tiles: int
    seconds: float
    """From opening the slide to the last report written."""
    tiles_per_s: float
    p20: float
    p80: float
    engine_only_tiles_per_s: float
    share_of_engine: float
    """Median over rounds of the slide's throughput divided by that of the engine alone, timed just before and after."""
    stages: dict[str, float]
    """Seconds of each stage; those in BESIDE are summed over all reading threads."""
    peak_rss_bytes: int | None
    """Peak resident memory of this process so far; None if the system does not report it."""
    p999_dp: float
    """99.9th percentile of |Δp| on the golden tiles with this engine, against the sealed probabilities."""
    within_tolerance: bool

    @property
    def slides_per_h(self) -> float | None:
        """Slides per hour, for slides of this size; None if it has too few tiles to stand for others."""
        return 3600 / self.seconds if self.tiles >= TILES_MIN else None

    @property
    def overhead_s(self) -> float:
        """Seconds per slide besides its tiles: all of IN_TURN except `wait` and `infer`.

        With many slides `score` does most of this while another slide is in the engine.
        """
        return sum(self.stages[stage] for stage in IN_TURN if stage not in ("wait", "infer"))

    @property
    def bound(self) -> str:
        """The bottleneck: the stage of IN_TURN that takes the most time."""
        return max(IN_TURN, key=lambda stage: self.stages[stage])

    @property
    def reading_tiles_per_s(self) -> float:
        """Throughput that the reading threads could reach, at the speed they had next to the engine."""
        readers = reader_count(self.threads, on_gpu=self.engine in ON_GPU)
        return self.tiles * readers / max(sum(self.stages[stage] for stage in BESIDE), 1e-9)


def time_slide(
    path: Path,
    scorer: Scorer,
    settings: Settings,
    *,
    reader: ReaderChoice = "auto",
    rounds: int = 3,
    engine_seconds: float = ENGINE_SECONDS,
    tell: Callable[[str], None] = lambda _text: None,
) -> SlideTiming:
    """The timing of a slide that is scored several times, into a folder that is then removed.

    Args:
        path: the slide.
        scorer: a bundle on an engine.
        settings: as for score_slide.
        reader: which reader decodes the tiles.
        rounds: how often to score it; the engine alone is timed before and after each round.
        engine_seconds: duration of each turn of the engine alone.
        tell: called with the current step.

    Raises:
        MminferError: the slide cannot be scored.
        UsageError: none of its tiles can be read.
    """
    tell("reading some tiles")
    held = _held_tiles(path, scorer, settings, reader)
    _engine_rate(scorer, held, engine_seconds)  # warm-up
    engine_rates, seconds, stages = [_engine_rate(scorer, held, engine_seconds)], [], []
    for turn in range(rounds):
        tell(f"round {turn + 1} of {rounds}")
        result, whole, spent = _scored_once(path, scorer, settings, reader)
        seconds.append(whole)
        stages.append(spent)
        engine_rates.append(_engine_rate(scorer, held, engine_seconds))
    tiles = len(result.tiles.minx)
    rates = tiles / np.array(seconds)
    around = (np.array(engine_rates[:-1]) + np.array(engine_rates[1:])) / 2
    bundle, numerics = scorer.bundle, scorer.numerics
    p999 = check_golden(bundle, scorer.engine).p999_dp
    p20, middle, p80 = (float(np.percentile(rates, percent)) for percent in (20, 50, 80))
    return SlideTiming(
        reader=result.slide.reader,
        engine=numerics.engine,
        precision=numerics.precision,
        threads=scorer.threads,
        rounds=rounds,
        tiles=tiles,
        seconds=median(seconds),
        tiles_per_s=middle,
        p20=p20,
        p80=p80,
        engine_only_tiles_per_s=median(engine_rates),
        share_of_engine=float(np.median(rates / around)),
        stages={stage: median(each[stage] for each in stages) for stage in (*IN_TURN, *BESIDE)},
        peak_rss_bytes=peak_rss_bytes(),
        p999_dp=p999,
        within_tolerance=p999 <= bundle.card.tolerance_of(numerics.precision).dp,
    )


def picture(timing: SlideTiming) -> bytes:
    """The seconds of each stage as a bar chart, PNG."""
    bars = [
        Bar(stage, timing.stages[stage], f"{timing.stages[stage]:.2f} s", told=stage in IN_TURN)
        for stage in (*IN_TURN, *BESIDE)
    ]
    by = f"{timing.engine} {timing.precision}, {timing.reader}"
    title = f"{plural(timing.tiles, 'tile')} in {timing.seconds:.2f} s ({by})"
    return chart(title, bars, "Pale: summed over the reading threads, in parallel with the others.")


def peak_rss_bytes() -> int | None:
    """Peak resident memory of this process so far; None if the system does not report it."""
    # On Linux getrusage also counts the process that started this one: its memory counts until exec.
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # not on Windows
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _held_tiles(path: Path, scorer: Scorer, settings: Settings, reader: ReaderChoice) -> list[NDArray[np.uint8]]:
    with open_slide(path) as slide:
        plan = plan_slide(slide, scorer.card, settings, reader=reader)
        rows = sorted({round(row) for row in np.linspace(0, len(plan.tiles) - 1, HELD_TILES)}) if plan.tiles else []
        feed = Feed(scorer.feed.readers)  # without frames: what is held must not be the engine's memory
        with read_tiles(slide, plan, feed, tiles=[plan.tiles[row] for row in rows]) as reads:
            held = [read.pixels for read in reads if read.pixels is not None]
    if not held:
        raise UsageError("None of the slide's tiles can be read, so there is nothing to time. Choose another slide.")
    return held


def _engine_rate(scorer: Scorer, held: list[NDArray[np.uint8]], seconds: float) -> float:
    """Throughput of the engine alone in tiles/s, with pixels always ready."""
    started, done = perf_counter(), 0

    def fed() -> Iterator[NDArray[np.uint8]]:
        while perf_counter() - started < seconds:
            yield from held[: scorer.engine.tiles_at_once]

    for outputs in scorer.engine.infer_each(fed()):
        done += len(outputs["probabilities"])
    return done / (perf_counter() - started)


def _scored_once(
    path: Path, scorer: Scorer, settings: Settings, reader: ReaderChoice
) -> tuple[SlideResult, float, dict[str, float]]:
    """The result, the seconds from opening the slide to the last report written, and the seconds of each stage."""
    with TemporaryDirectory(prefix="mminfer-bench-") as folder:
        started = perf_counter()
        result = score_slide(path, scorer, settings=settings, reader=reader)
        scored = perf_counter()
        write_reports(Path(folder), result)
        written = perf_counter()
    spent = dict.fromkeys((*IN_TURN, *BESIDE), 0.0) | {"write": written - scored}
    for stage, ms in result.run.timings_ms.items():
        spent[stage] += ms / 1000
    return result, written - started, spent
