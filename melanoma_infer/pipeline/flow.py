"""The whole flow: slide → tissue → tiles → engine → slide result, for one slide and for many."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from melanoma_infer.patients.patient import strict_patient
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.pipeline.slide_job import RunOptions, SlideJob
from melanoma_infer.pipeline.slide_scoring import Progress, SlideRequest, SlideScoring
from melanoma_infer.reports.output import OutputFolder
from melanoma_infer.result import SlideOutcome, SlideResult
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.scoring.accumulator import SlideCase
from melanoma_infer.settings import Settings
from melanoma_infer.slides.choice import ReaderChoice


def score_slide(
    path: str | Path,
    scorer: Scorer,
    *,
    patient: Mapping[str, object] | None = None,
    settings: Settings | None = None,
    reader: ReaderChoice = "auto",
    progress: Progress | None = None,
) -> SlideResult:
    """The result of one slide.

    Args:
        path: a slide that OpenSlide reads, or a plain image.
        scorer: a bundle on an engine.
        patient: values for the card's patient fields; what is not given is unknown.
        settings: what differs from the model card.
        reader: who decodes the tiles: "openslide", "tiff", or "auto", the faster one that gives OpenSlide's pixels.
        progress: called after each tile.

    Raises:
        MminferError: see melanoma_infer.errors; a slide without tissue is a result, not an error.
    """
    path = Path(path)
    given = strict_patient(patient, scorer.bundle.card.patient_fields) if patient is not None else None
    request = SlideRequest(path, SlideCase(path.stem, patient=given), settings or Settings(), reader)
    with SlideScoring(request, scorer, Stopwatch()) as scoring:
        for _tile in scoring.infer(progress):
            pass
        return scoring.result()


def score_slides(
    requests: Iterable[SlideRequest],
    scorer: Scorer,
    out: OutputFolder,
    *,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Generator[SlideOutcome, None, None]:
    """Score slides and write each one's files; a failed slide is an outcome, not an exception.

    While one slide is in the engine, the next one's tissue and first tiles are found, and the last one's files are
    written. Outcomes come in the order of the requests, each as soon as its files stand.

    Args:
        requests: the slides; taken one ahead.
        scorer: a bundle on an engine, used by the caller's thread only.
        out: the locked output folder.
        options: what holds for all slides.
        progress: called after each tile.
    """
    jobs = (SlideJob(request, scorer, out, options or RunOptions()) for request in requests)
    finishing: deque[Future[SlideOutcome]] = deque()
    with (
        ThreadPoolExecutor(1, "mminfer-prepare") as preparer,
        ThreadPoolExecutor(1, "mminfer-finish") as finisher,
        closing(_prepared(jobs, preparer)) as prepared,
    ):
        for job in prepared:
            for _tile in job.infer(progress):
                if finishing and finishing[0].done():
                    yield finishing.popleft().result()
            yield from _outcomes(finishing)
            finishing.append(finisher.submit(job.finish))
        yield from _outcomes(finishing)


def _prepared(jobs: Iterable[SlideJob], preparer: ThreadPoolExecutor) -> Generator[SlideJob, None, None]:
    """The jobs, each prepared; while one is used, the next is being prepared."""
    preparing: deque[Future[SlideJob]] = deque()
    try:
        for job in jobs:
            preparing.append(preparer.submit(job.prepare))
            if len(preparing) > 1:
                yield preparing.popleft().result()
        while preparing:
            yield preparing.popleft().result()
    finally:
        for unused in preparing:
            unused.result().close()


def _outcomes(finishing: deque[Future[SlideOutcome]]) -> Iterator[SlideOutcome]:
    """Wait for what is being finished."""
    while finishing:
        yield finishing.popleft().result()
