"""Compares engines: all are loaded, then each is timed once per round, so that noise affects all of them equally."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bench.chart import Bar, chart
from melanoma_infer.bench.roofline import Roofline
from melanoma_infer.bench.subjects import BEST, COMPILED, KEEPING_MEMORY, NCHW, Subject
from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.golden import golden_differences
from melanoma_infer.runtime.child import child_command, child_environment
from melanoma_infer.tolerances import Precision

CHILD = "melanoma_infer.bench.child"
ROUNDS = 5
SECONDS = 0.5
"""Shortest duration of a repeat."""


@dataclass(frozen=True)
class EngineRow:
    """One subject: median throughput over its repeats, and their 20th and 80th percentile."""

    engine: str
    precision: Precision
    batch: int
    layout: str
    tiles_per_s: float
    p20: float
    p80: float
    ratio_to_nchw: float | None
    """Median over rounds of this throughput divided by that of torch-eager-nchw in the same round."""
    ratio_to_best: float | None
    """The same for torch-eager-best of the same precision, or of fp32 if there is none of that precision."""
    p999_dp: float
    """99.9th percentile of |Δp| on the golden tiles, against the sealed probabilities."""
    within_tolerance: bool

    def cells(self, limit: Roofline) -> tuple[str, ...]:
        """Its figures, for a table, beside the machine's limit."""
        share = limit.share(self.precision, self.tiles_per_s)
        ratios = ("" if ratio is None else f"{ratio:.2f}" for ratio in (self.ratio_to_nchw, self.ratio_to_best))
        return (
            self.engine,
            self.precision,
            f"{self.batch} {self.layout}".strip(),
            f"{self.tiles_per_s:.2f}",
            f"{self.p20:.2f}-{self.p80:.2f}",
            *ratios,
            "" if share is None else f"{share:.0%}",
            f"{self.p999_dp:.1e}",
            "" if self.within_tolerance else "BEYOND ITS TOLERANCE",
        )


class Timed:
    """A subject's process, ready to be timed."""

    def __init__(self, subject: Subject, bundle: str, threads: int, seconds: float) -> None:
        self.subject = subject
        self._process = subprocess.Popen(
            child_command(CHILD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=child_environment() | (KEEPING_MEMORY if subject.keeps_memory else {}),
        )
        request = {"subject": asdict(subject), "bundle": bundle, "threads": threads, "seconds": seconds}
        self.facts = self._ask(request)

    def repeat(self) -> float:
        """Throughput of one repeat, in tiles/s; NaN if the process failed."""
        answer = self._ask({})
        return float(answer["tiles"] / answer["seconds"]) if "seconds" in answer else float("nan")

    def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"unavailable": "its process died"}
        answer = self._process.stdout.readline()
        return dict(json.loads(answer)) if answer else {"unavailable": "its process died"}

    def __enter__(self) -> Timed:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def time_engines(
    bundle: Bundle,
    source: str | Path,
    subjects: Iterable[Subject],
    *,
    threads: int,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    each_round: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda _text: None,
) -> tuple[list[EngineRow], dict[str, str]]:
    """A row for each subject that runs here, and the reason for each that does not, by name.

    Args:
        bundle: the verified model.
        source: its name or path, from which each process opens it.
        subjects: what to time.
        threads: number of threads of each subject.
        rounds: number of repeats of each subject.
        seconds: shortest duration of a repeat.
        each_round: called after each round.
        tell: called with the name of each subject that is loaded.
    """
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        ready: list[Timed] = []
        for subject in subjects:
            tell(f"{subject.name} {subject.precision}")
            timed = stack.enter_context(Timed(subject, str(source), threads, seconds))
            if why := timed.facts.get("unavailable"):
                left_out[f"{subject.name} {subject.precision}"] = why
            else:
                ready.append(timed)
        tell("timing")
        rates = []
        for _ in range(rounds):
            rates.append([timed.repeat() for timed in ready])
            each_round()
    by_subject = np.array(rates).T
    by_key = {timed.subject.key: rate for timed, rate in zip(ready, by_subject, strict=True)}
    return [_row(bundle, timed, rate, by_key) for timed, rate in zip(ready, by_subject, strict=True)], left_out


def fastest(rows: Sequence[EngineRow]) -> EngineRow | None:
    """The fastest row that is within its tolerance, or None."""
    return max((row for row in rows if row.within_tolerance), key=lambda row: row.tiles_per_s, default=None)


def of_engines(rows: Sequence[EngineRow]) -> list[EngineRow]:
    """The rows of engines that `score` can run, without plain PyTorch."""
    return [row for row in rows if row.engine not in (NCHW, BEST, COMPILED)]


def conclusion(rows: Sequence[EngineRow], limit: Roofline, tile_px: int) -> str:
    """The rows in a sentence: the fastest engine within its tolerance, against PyTorch and the machine's limit."""
    engines = of_engines(rows)
    best = fastest(engines)
    if not engines:
        return "None of the engines that `mminfer score` uses was timed."
    if best is None:
        return "No engine that `mminfer score` uses is within its tolerance here. Run `mminfer verify`."
    share = limit.share(best.precision, best.tiles_per_s)
    nchw, at_best = best.ratio_to_nchw, best.ratio_to_best
    than = "" if nchw is None else f", {nchw:.1f} × eager PyTorch as published code runs it"
    than += "" if at_best is None else f" and {at_best:.1f} × eager PyTorch at its best"
    of_peak = "" if share is None else f", {share:.0%} of this machine's peak GEMM throughput"
    return (
        f"The fastest engine within its tolerance is {best.engine} {best.precision}: "
        f"{best.tiles_per_s:.1f} tiles/s of {tile_px} px{than}{of_peak}."
    )


def picture(rows: Sequence[EngineRow]) -> bytes:
    """The rows' throughput as a bar chart, PNG."""
    bars = [
        Bar(
            f"{row.engine} {row.precision}",
            row.tiles_per_s,
            f"{row.tiles_per_s:.2f} tiles/s",
            told=row.within_tolerance,
        )
        for row in rows
    ]
    return chart("Tiles per second", bars, "Pale: beyond its tolerance.")


def _row(
    bundle: Bundle, timed: Timed, rates: NDArray[np.float64], by_key: dict[tuple[str, str], NDArray[np.float64]]
) -> EngineRow:
    subject, precision = timed.subject, timed.subject.precision
    p999 = golden_differences(bundle, {"probabilities": np.array(timed.facts["probabilities"])}).p999_dp
    p20, median, p80 = (float(np.percentile(rates, percent)) for percent in (20, 50, 80))
    best = by_key.get((BEST, precision), by_key.get((BEST, "fp32")))
    return EngineRow(
        engine=subject.name,
        precision=precision,
        batch=timed.facts["batch"],
        layout=timed.facts["layout"],
        tiles_per_s=median,
        p20=p20,
        p80=p80,
        ratio_to_nchw=_ratio(rates, by_key.get((NCHW, "fp32"))),
        ratio_to_best=_ratio(rates, best),
        p999_dp=p999,
        within_tolerance=p999 <= bundle.card.tolerance_of(precision).dp,
    )


def _ratio(rates: NDArray[np.float64], reference: NDArray[np.float64] | None) -> float | None:
    return None if reference is None else float(np.median(rates / reference))
