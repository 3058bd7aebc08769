"""Score slides from the command line: record the results, show progress, report each outcome when it is known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_infer.cli.console import detail, note, say_error
from melanoma_infer.cli.progress import shown_progress
from melanoma_infer.cli.run_log import RunLog
from melanoma_infer.errors import Stopped
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.pipeline.batch import Batch, Idle
    from melanoma_infer.pipeline.request import RunOptions, RunProgress, SlideRequest
    from melanoma_infer.pipeline.worker import LoadScorer
    from melanoma_infer.result import SlideOutcome
    from melanoma_infer.store.output import OutputFolder


def score_and_record(
    requests: Sequence[SlideRequest],
    bundle: Bundle,
    load: LoadScorer,
    out: Path,
    *,
    command: Sequence[str],
    options: RunOptions,
    tell: Callable[[SlideOutcome], None],
    tell_engine: Callable[[Batch], None] = lambda _batch: None,
    fail_fast: bool = False,
    log: RunLog | None = None,
) -> list[SlideOutcome]:
    """Score slides into the folder `out`; returns the outcomes, up to the first failure if `fail_fast`.

    The arguments are those of `recorded_batch`, and the slides.
    """
    outcomes: list[SlideOutcome] = []
    batch = recorded_batch(
        bundle,
        load,
        out,
        command=command,
        options=options,
        tell=tell,
        tell_engine=tell_engine,
        log=log,
        first=requests[0] if requests else None,
    )
    with (
        closing(batch),
        shown_progress(len(requests)) as progress,
        closing(batch.outcomes(requests, progress)) as scored,
    ):
        try:
            for outcome in scored:
                outcomes.append(outcome)
                if fail_fast and outcome.exit_code:
                    break
        except Stopped as stop:
            kept = sum(outcome.result is not None for outcome in outcomes)
            raise Stopped(stop.exit_code, _stopped(kept, len(requests), out)) from stop
    return outcomes


def recorded_batch(
    bundle: Bundle,
    load: LoadScorer,
    out: Path,
    *,
    command: Sequence[str],
    options: RunOptions,
    tell: Callable[[SlideOutcome], None],
    tell_engine: Callable[[Batch], None] = lambda _batch: None,
    log: RunLog | None = None,
    first: SlideRequest | None = None,
) -> RecordedBatch:
    """A scorer that is loaded now, and whose outcomes are recorded in the folder `out`.

    Args:
        bundle: the model that `load` puts on an engine.
        load: makes the scorer, in the process that scores.
        out: the folder for the results.
        command: stored in the record of the run, so it must contain no path and no patient value.
        options: what holds for all slides.
        tell: called with each outcome when it is known.
        tell_engine: called once, when the engine is loaded.
        log: gets an event when the engine is loaded, and one for each outcome.
        first: the slide that comes first, if it is known: it is planned while the engine is being loaded.
    """
    from melanoma_infer.pipeline.batch import score_batch

    log = log or RunLog()
    batch = score_batch(load, out, options, first=(first, bundle.card) if first else None, tell=note)
    try:
        # Imported while a worker loads the engine.
        from melanoma_infer.store.output import OutputFolder
        from melanoma_infer.store.run_record import RunRecord  # noqa: F401 - used with the first slide
        from melanoma_infer.store.summary import Summary  # noqa: F401

        folder = OutputFolder(out)
        batch.load()
    except BaseException:
        batch.close()
        raise
    computing = batch.computing
    log.event(
        "engine-loaded",
        bundle_digest=bundle.digest,
        **vars(computing.numerics),
        skipped=list(computing.skipped),
        remarks=list(computing.remarks),
    )
    tell_engine(batch)
    return RecordedBatch(batch, bundle, folder, command, tell, log)


class RecordedBatch:
    """A batch whose outcomes are recorded and told: in runs/, in summary.csv, in the log and to the user."""

    def __init__(
        self,
        batch: Batch,
        bundle: Bundle,
        folder: OutputFolder,
        command: Sequence[str],
        tell: Callable[[SlideOutcome], None],
        log: RunLog,
    ) -> None:
        from melanoma_infer.store.summary import Summary

        self._batch, self._bundle, self._folder, self._command = batch, bundle, folder, command
        self._tell, self._log = tell, log
        self.numerics = batch.computing.numerics
        self._summary = Summary(
            folder, lambda name: note(f"summary.csv had other columns: it is {name} now, with all its rows")
        )

    def outcomes(
        self, requests: Iterable[SlideRequest], progress: RunProgress | None = None, idle: Idle | None = None
    ) -> Generator[SlideOutcome, None, None]:
        """Those of `Batch.outcomes`, each when it is recorded; one call is one run in runs/."""
        from melanoma_infer.store.run_record import RunRecord

        with (
            RunRecord(
                self._folder,
                self._bundle,
                self.numerics,
                remarks=self._batch.computing.remarks,
                command=self._command,
            ) as record,
            closing(self._batch.outcomes(requests, progress, idle)) as scored,
        ):
            for outcome in scored:
                record.add(outcome)
                self._summary.add(outcome, self._bundle, self.numerics)
                self._log.slide(outcome)
                self._tell(outcome)
                _tell_times(outcome)
                yield outcome

    def close(self) -> None:
        """End the worker."""
        self._batch.close()


def _stopped(kept: int, asked: int, out: Path) -> str:
    """What is kept of a run that was stopped, and how to go on."""
    return (
        f"stopped: the results of {kept} of {plural(asked, 'slide')} are kept in {out}. "
        "The same command goes on with the others."
    )


def tell_failure(outcome: SlideOutcome) -> None:
    """Print which slide failed, at which stage and why."""
    say_error(f"{outcome.id or 'a slide'}: failed at {outcome.stage!r} (exit {outcome.exit_code}): {outcome.message}")


def _tell_times(outcome: SlideOutcome) -> None:
    """With --verbose, print how long the slide took and each of its stages."""
    if outcome.result is None or outcome.skipped:
        return
    stages = ", ".join(f"{stage} {ms / 1000:.2f} s" for stage, ms in outcome.result.run.timings_ms.items())
    tiles = plural(len(outcome.result.tiles.minx), "tile")
    detail(f"{outcome.id}: {tiles} in {outcome.seconds:.2f} s ({stages})")
