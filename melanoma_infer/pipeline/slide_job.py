"""One slide of many, and the boundary round it.

One bad slide among many never stops or changes the others: `_bounded` is the only place that catches everything, and
records the slide, the stage and the cause.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from melanoma_infer.engines.parity_table import engine_band
from melanoma_infer.errors import MemoryExhaustedError, MminferError
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.pipeline.slide_scoring import Progress, SlideRequest, SlideScoring
from melanoma_infer.records import Identity, Tile
from melanoma_infer.reports.output import OutputFolder
from melanoma_infer.result import SlideOutcome
from melanoma_infer.runtime.privacy import DIGEST_CHARS, without_paths
from melanoma_infer.runtime.provenance import VERSION, digest_of
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.base import Closing
from melanoma_infer.slides.members import identify


@dataclass(frozen=True)
class RunOptions:
    """What holds for all slides of a run."""

    hide_names: bool = False
    """Digests in place of names."""
    overwrite: bool = False
    """Redo slides that are finished."""
    full_digest: bool = False
    """Identify slides by all their bytes."""


class SlideJob(Closing):
    """A slide to `prepare`, `infer` and `write`, in this order, each perhaps in another thread.

    What fails is in the outcome that `write` returns; none of the three raises for it.

    Args:
        request: the slide.
        scorer: a bundle on an engine.
        out: the locked output folder.
        options: of the run.
    """

    def __init__(self, request: SlideRequest, scorer: Scorer, out: OutputFolder, options: RunOptions) -> None:
        self._request, self._scorer, self._out, self._options = request, scorer, out, options
        self._case = replace(request.case, id="") if options.hide_names else request.case
        self._watch = Stopwatch()
        self._seconds = 0.0
        self._scoring: SlideScoring | None = None
        self._outcome: SlideOutcome | None = None

    def prepare(self) -> Self:
        """Find the slide's identity, its tissue and its first tiles, unless it was finished before."""
        with self._bounded():
            identity = _identity(self._request.path, full=self._options.full_digest)
            if self._options.hide_names:
                self._case = replace(self._case, id=identity.digest[:DIGEST_CHARS])
            wanted = _settings_digest(self._request, self._scorer, identity)
            self._outcome = self._finished_before(identity, wanted)
            if self._outcome is None:
                named = replace(self._request, case=self._case)
                self._scoring = SlideScoring(
                    named, self._scorer, self._watch, identity=identity, settings_digest=wanted
                )
        return self

    def infer(self, progress: Progress | None) -> Iterator[Tile]:
        """Pass the slide's tiles through the engine; each when it is done."""
        if self._scoring is not None:
            with self._bounded():
                yield from self._scoring.infer(progress)

    def finish(self) -> SlideOutcome:
        """The outcome; a slide that has a result has its files written."""
        if self._outcome is None:
            with self._bounded():
                self._outcome = self._written()
        assert self._outcome is not None  # what is not written has failed
        return replace(self._outcome, seconds=self._seconds)

    def close(self) -> None:
        """Stop reading."""
        if self._scoring is not None:
            self._scoring.close()

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Whatever fails in the block is this slide's failure; the time of the block is this slide's."""
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

    def _written(self) -> SlideOutcome:
        assert self._scoring is not None  # `prepare` came first
        result = self._scoring.result()
        folder = self._out.folder_of(self._case.id, result.slide.digest)
        with self._watch.timing("write"):
            self._out.write(folder, result)
        return SlideOutcome(self._case.id, self._case.case_id, 0, "", "", 0.0, folder, result)

    def _finished_before(self, identity: Identity, settings_digest: str | None) -> SlideOutcome | None:
        folder = self._out.folder_of(self._case.id, identity.digest)
        finished = None if self._options.overwrite else self._out.finished(folder, identity, settings_digest)
        if finished is None:
            return None
        return SlideOutcome(
            finished.id, finished.case_id, 0, "finished before", "", 0.0, folder, finished, skipped=True
        )

    def _fail(self, failure: MminferError) -> None:
        case = self._case
        self._outcome = SlideOutcome(
            case.id, case.case_id, failure.exit_code, str(failure), self._watch.stage, self._seconds
        )


def _identity(path: Path, *, full: bool) -> Identity:
    with open_slide(path) as slide:
        return identify(path, slide.facts.quickhash, full=full)


def _settings_digest(request: SlideRequest, scorer: Scorer, identity: Identity) -> str | None:
    """What a finished result is compared with; None where it would tell patient values that must not be written."""
    case = request.case
    if case.patient is not None and not case.patient_in_output:
        return None
    return digest_of(
        {
            "version": VERSION,
            "bundle": scorer.bundle.digest,
            "numerics": vars(scorer.numerics),
            "engine_band": _engine_band(scorer),
            "settings": request.settings.model_dump(),
            "mask": _mask_digest(request.settings.tissue),
            "patient": vars(case.patient) if case.patient else None,
            "case_id": case.case_id,
            "slide": identity.digest,
        }
    )


def _engine_band(scorer: Scorer) -> float:
    """A part of the verdict that `mminfer verify` may change between two runs."""
    numerics = scorer.numerics
    return engine_band(scorer.bundle, numerics.engine, numerics.precision, numerics.device)


def _mask_digest(tissue: str) -> str | None:
    """The content of a mask given by path: the same path may hold another mask tomorrow."""
    mask = Path(tissue)
    return hashlib.sha256(mask.read_bytes()).hexdigest() if tissue not in ("auto", "all") and mask.is_file() else None
