"""The whole flow, from a slide to its result: five steps for one slide, the same five for many."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event

from melanoma_infer.patients.case import SlideCase
from melanoma_infer.patients.patient import strict_patient
from melanoma_infer.pipeline.head_start import HeadStart
from melanoma_infer.pipeline.request import Progress, RunOptions, RunProgress, RunStep, SlideRequest
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.pipeline.slide_job import SlideJob
from melanoma_infer.result import RunOut, SlideOutcome, SlideResult
from melanoma_infer.runtime.privacy import slide_name
from melanoma_infer.runtime.provenance import machine
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.runtime.utc import utc_now
from melanoma_infer.scoring.slide_result import slide_result
from melanoma_infer.scoring.tile_table import tile_table
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.choice import ReaderChoice
from melanoma_infer.store.output import OutputFolder
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tiles


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
        patient: values for the card's patient fields; the others are unknown.
        settings: what differs from the model card.
        reader: who decodes the tiles: "openslide", "tiff", or "auto", the faster one that gives OpenSlide's pixels.
        progress: called after each tile.

    Raises:
        MminferError: see melanoma_infer.errors; a slide without tissue is a result, not an error.
    """
    bundle, watch, started = scorer.bundle, Stopwatch(), utc_now()
    known = strict_patient(patient, bundle.card.patient_fields) if patient is not None else None
    case = SlideCase(slide_name(Path(path)), patient=known)
    with watch.timing("open"):
        slide = open_slide(path)
    with slide:
        plan = plan_slide(slide, bundle.card, settings or Settings(), reader=reader, watch=watch)
        with read_tiles(slide, plan, scorer.feed, watch=watch) as pixels:
            outputs = list(scorer.infer(pixels, progress, watch))
            with watch.timing("score"):
                table = tile_table(outputs, bundle)
                result = slide_result(
                    plan, table, case, bundle, scorer.numerics, read=pixels.read, sum_scores=scorer.sum_scores
                )
    run = RunOut(started=started, finished=utc_now(), machine=machine(), timings_ms=watch.rounded_ms)
    return result.model_copy(update={"run": run})


def score_slides(
    requests: Iterable[SlideRequest],
    scorer: Scorer,
    out: OutputFolder,
    *,
    options: RunOptions | None = None,
    progress: RunProgress | None = None,
    head_start: HeadStart | None = None,
) -> Generator[SlideOutcome, None, None]:
    """Score slides and write each one's files; a failed slide is an outcome, not an exception.

    While one slide is in the engine, the next one is opened and planned and its first tiles are read, and the files of
    the last one are written. Outcomes come in the order of the requests, each as soon as its files are written.

    Args:
        requests: the slides; taken one ahead.
        scorer: a bundle on an engine, used by the caller's thread only.
        out: the output folder.
        options: what holds for all slides.
        progress: called after each tile, and when a slide's tiles are done.
        head_start: of the first slide.
    """
    tell, stopping = progress or (lambda _step: None), Event()
    jobs = (
        SlideJob(
            request, scorer, out, options or RunOptions(), stopping, head_start.opening(request) if head_start else None
        )
        for request in requests
    )
    finishing: deque[Future[SlideOutcome]] = deque()
    with (
        ThreadPoolExecutor(1, "mminfer-prepare") as preparer,
        ThreadPoolExecutor(1, "mminfer-finish") as finisher,
        closing(_prepared(jobs, preparer, stopping)) as prepared,
    ):
        job = None
        try:
            for number, job in enumerate(prepared, start=1):
                for _ in job.infer(partial(_tell_tiles, tell, number)):
                    if finishing and finishing[0].done():
                        yield finishing.popleft().result()
                tell(RunStep(number, "write"))
                yield from _outcomes(finishing)
                finishing.append(finisher.submit(job.finish))
                job = None
            yield from _outcomes(finishing)
        except BaseException as stop:
            stopping.set()
            if job is not None:
                job.close()
            if not isinstance(stop, GeneratorExit):  # a slide whose files are written is told, also when interrupted
                yield from _outcomes(finishing)
            raise


def _tell_tiles(tell: RunProgress, slide: int, done: int, total: int) -> None:
    tell(RunStep(slide, "tiles", done, total))


def _prepared(
    jobs: Iterable[SlideJob], preparer: ThreadPoolExecutor, stopping: Event
) -> Generator[SlideJob, None, None]:
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
        stopping.set()
        for unused in preparing:
            unused.result().close()


def _outcomes(finishing: deque[Future[SlideOutcome]]) -> Iterator[SlideOutcome]:
    """Wait for the slides that are being finished."""
    while finishing:
        outcome = finishing[0].result()
        finishing.popleft()
        yield outcome
