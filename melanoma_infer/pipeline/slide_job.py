"""One slide of many, and the boundary around it.

One bad slide among many never stops or changes the others: `_bounded` is the only place that catches everything. It
records the slide, the stage and the cause.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Self

from melanoma_infer.errors import MemoryExhaustedError, MminferError
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.pipeline.head_start import Opening
from melanoma_infer.pipeline.request import Progress, RunOptions, SlideRequest
from melanoma_infer.pipeline.run_parts import run_parts
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.records import TileResult
from melanoma_infer.result import RunOut, SlideOutcome, SlideResult
from melanoma_infer.runtime.privacy import DIGEST_CHARS, without_paths
from melanoma_infer.runtime.provenance import machine
from melanoma_infer.runtime.utc import utc_now
from melanoma_infer.scoring.slide_result import slide_result
from melanoma_infer.scoring.tile_table import tile_table
from melanoma_infer.slides.members import identify_unopened
from melanoma_infer.store.output import OutputFolder, ResultFolder
from melanoma_infer.tiles.plan import SlidePlan
from melanoma_infer.tiles.reading import TileStream, read_tiles


class SlideJob:
    """A slide to `prepare`, `infer` and `finish`, in this order, each perhaps in another thread.

    The steps are those of `score_slide`. A failure is in the outcome that `finish` returns; none of the three raises
    for it.

    Args:
        request: the slide.
        scorer: a bundle on an engine.
        out: the output folder.
        options: of the run.
        stopping: set when nobody wants the outcome any more.
        opening: of the slide, if it had a head start.
    """

    def __init__(
        self,
        request: SlideRequest,
        scorer: Scorer,
        out: OutputFolder,
        options: RunOptions,
        stopping: Event,
        opening: Opening | None = None,
    ) -> None:
        self._request, self._scorer, self._out, self._options = request, scorer, out, options
        self._stopping = stopping
        self._case: SlideCase = replace(request.case, id="") if options.hide_names else request.case
        self._opening = opening or Opening(request, options.full_digest)
        self._watch, self._open = self._opening.watch, self._opening.held
        self._seconds = self._opening.seconds
        self._digest: str | None = None
        self._key = ""
        self._folder: ResultFolder | None = None
        self._plan: SlidePlan | None = None
        self._pixels: TileStream | None = None
        self._results: list[TileResult] = []
        self._outcome: SlideOutcome | None = None

    def prepare(self) -> Self:
        """Open and plan the slide and read its first tiles, unless it was finished before."""
        with self._bounded():
            identity = self._opening.open().identity
            self._digest = identity.digest
            if self._options.hide_names:
                self._case = replace(self._case, id=identity.digest[:DIGEST_CHARS])
            self._key = self._out.run_key(
                run_parts(
                    self._request.case,
                    self._request.settings,
                    self._scorer.bundle,
                    self._scorer.numerics,
                    name=self._case.id,
                )
            )
            self._folder = self._out.claim(
                self._case.id, identity.digest, self._key, self._request.path, self._stopping
            )
            old = self._folder.finished(identity)
            if old is not None and not self._options.overwrite:
                self._outcome = replace(
                    self._ended(0, "finished before", old),
                    started=old.run.started or "",
                    finished=old.run.finished or "",
                    skipped=True,
                )
            else:
                self._read()
        return self

    def _read(self) -> None:
        """Plan the slide, and read its first tiles."""
        scorer, watch = self._scorer, self._watch
        self._plan = self._opening.plan(scorer.card)
        pixels = read_tiles(self._opening.open().slide, self._plan, scorer.feed, watch=watch)
        self._pixels = self._open.enter_context(pixels)
        with watch.timing("wait"):
            pixels.wait()

    def infer(self, progress: Progress | None) -> Iterator[TileResult]:
        """Pass the slide's tiles through the engine; each is yielded when it is done."""
        if self._pixels is None or self._outcome is not None:
            return
        with self._bounded():
            for result in self._scorer.infer(self._pixels, progress, self._watch):
                self._results.append(result)
                yield result

    def finish(self) -> SlideOutcome:
        """The outcome; the files of a slide that has a result are written."""
        if self._outcome is None:
            with self._bounded():
                assert self._folder is not None  # `prepare` came first
                result = self._result(self._folder)
                with self._watch.timing("write"):
                    self._folder.write(result)
                self._outcome = replace(self._ended(0, "", result), finished=result.run.finished or "")
        assert self._outcome is not None  # what was not written has failed
        self.close()
        return replace(self._outcome, seconds=self._seconds)

    def close(self) -> None:
        """Stop reading, and release the slide and its result folder."""
        self._open.close()
        if self._folder is not None:
            self._folder.close()

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Count the block's time, and take whatever fails in it as this slide's failure."""
        started = time.perf_counter()
        try:
            yield
        except MminferError as error:
            self._fail(error)
        except MemoryError:
            self._fail(
                MemoryExhaustedError("There was not enough memory. Close other programs, or use fewer --threads.")
            )
        except Exception as error:  # noqa: BLE001 - the one boundary: a bug in one slide must not cost the others
            cause = without_paths(f"{type(error).__name__}: {error}", self._request.path)
            self._fail(MminferError(f"This is a bug in mminfer, please report it ({cause})."))
        finally:
            self._seconds += time.perf_counter() - started

    def _result(self, folder: ResultFolder) -> SlideResult:
        assert self._plan is not None  # `prepare` came first
        assert self._pixels is not None
        scorer, read = self._scorer, self._pixels.read
        with self._watch.timing("score"):
            table = tile_table(self._results, scorer.bundle)
            result = slide_result(
                self._plan, table, self._case, scorer.bundle, scorer.numerics, read=read, sum_scores=scorer.sum_scores
            )
        self._open.close()  # the readers' times are counted when they close
        run = RunOut(
            started=self._opening.started,
            finished=utc_now(),
            folder=folder.path.name,
            key=self._key,
            slide_mtime_ns=self._plan.identity.mtime_ns,
            machine=machine(),
            timings_ms=self._watch.rounded_ms,
        )
        return result.model_copy(update={"run": run})

    def _ended(self, exit_code: int, message: str, result: SlideResult | None = None) -> SlideOutcome:
        """The outcome of a slide that ends now."""
        folder = self._folder.path if self._folder is not None and result is not None else None
        return SlideOutcome(
            id=self._case.id,
            case_id=self._case.case_id,
            exit_code=exit_code,
            message=message,
            stage="" if result is not None else self._watch.stage,
            seconds=self._seconds,
            started=self._opening.started,
            finished=utc_now(),
            digest=self._digest,
            folder=folder,
            result=result,
            settings=self._request.settings.options(),
        )

    def _fail(self, failure: MminferError) -> None:
        if self._digest is None:  # it was not opened
            self._digest = identify_unopened(self._request.path)
            if self._options.hide_names and self._digest is not None:
                self._case = replace(self._case, id=self._digest[:DIGEST_CHARS])
        message = self._request.message(failure, hide_names=self._options.hide_names)
        self._outcome = self._ended(failure.exit_code, message)
