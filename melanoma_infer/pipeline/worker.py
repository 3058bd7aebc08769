"""`score_slides` in a process of its own: a native library that crashes costs one slide, not the run.

The worker sends messages; no pixels cross between the processes. The caller's process keeps the record of the run. If
the worker dies, the slides that were in progress are scored again in a fresh worker, one at a time; a slide that is
alone in a worker when it dies has failed, and the run goes on without it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from melanoma_infer.engines.base import Numerics
from melanoma_infer.errors import EngineUnavailableError, NativeCrashError
from melanoma_infer.pipeline.flow import score_slides
from melanoma_infer.pipeline.request import RunOptions, RunProgress, RunStep, SlideRequest
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.result import SlideOutcome
from melanoma_infer.runtime.utc import utc_now
from melanoma_infer.store.output import OutputFolder

RUNTIMES = frozenset({"openvino", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx"})
"""Libraries whose threads do not survive a fork."""
STOP_SECONDS = 10.0
"""How long a worker that is asked to stop may take, before it is killed."""

PR_SET_PDEATHSIG = 1
"""From Linux's prctl.h."""

LoadScorer = Callable[[], Scorer]


class Batch(Protocol):
    """Slides that are being scored, in this process or in a worker."""

    numerics: Numerics
    """What computes the numbers."""
    skipped: tuple[str, ...]
    """Engines that were tried before this one, and why they were skipped."""

    def outcomes(self, progress: RunProgress | None = None) -> Generator[SlideOutcome, None, None]:
        """The outcomes, in the order of the requests."""


def score_batch(load: LoadScorer, requests: Sequence[SlideRequest], out: OutputFolder, options: RunOptions) -> Batch:
    """Slides to be scored in a worker, where a process can be forked safely; else in this process.

    Args:
        load: makes the scorer, in the process that scores.
        requests: the slides.
        out: the output folder.
        options: what holds for all slides.

    Raises:
        MminferError: what `load` raises.
        EngineUnavailableError: the engine crashed when it was loaded.
    """
    if sys.platform == "linux" and threading.active_count() == 1 and RUNTIMES.isdisjoint(sys.modules):
        return _Workers(load, requests, out, options)
    return _InThisProcess(load, requests, out, options)


class _InThisProcess:
    def __init__(
        self, load: LoadScorer, requests: Sequence[SlideRequest], out: OutputFolder, options: RunOptions
    ) -> None:
        self._scorer, self._requests, self._out, self._options = load(), requests, out, options
        self.numerics, self.skipped = self._scorer.numerics, self._scorer.skipped

    def outcomes(self, progress: RunProgress | None = None) -> Generator[SlideOutcome, None, None]:
        """The outcomes, in the order of the requests."""
        return score_slides(self._requests, self._scorer, self._out, options=self._options, progress=progress)


@dataclass(frozen=True)
class _Work:
    """What one worker is given: the slides that are left, the first `alone` of them to be scored one at a time."""

    load: LoadScorer
    requests: Sequence[SlideRequest]
    out: OutputFolder
    options: RunOptions
    alone: int = 0
    before: int = 0
    """Slides of the run that have an outcome already."""


class _Workers:
    """One worker after another, until every slide has an outcome."""

    def __init__(
        self, load: LoadScorer, requests: Sequence[SlideRequest], out: OutputFolder, options: RunOptions
    ) -> None:
        self._slides = len(requests)
        self._work = _Work(load, requests, out, options)
        self._taken_at = utc_now()
        self._start()
        self.numerics, self.skipped = self._loaded()

    def outcomes(self, progress: RunProgress | None = None) -> Generator[SlideOutcome, None, None]:
        """The outcomes, in the order of the requests."""
        try:
            while (yield from self._until_it_ends(progress)):
                self._start()
                self._loaded()
        except GeneratorExit:  # nobody takes another outcome
            raise
        except BaseException:  # interrupted: slides whose files are written are still told
            self._process.terminate()
            yield from self._last_outcomes()
            raise
        finally:
            self._process.terminate()
            self._messages.close()  # a worker that waits for its messages to be read ends, too
            self._process.join(STOP_SECONDS)
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._messages, sender = context.Pipe(duplex=False)
        # A daemon is stopped, not waited for, when this process ends.
        self._process = context.Process(
            target=_work, args=(self._work, self._messages, sender, os.getpid()), daemon=True
        )
        self._process.start()
        sender.close()  # the end of the worker is then the end of its messages

    def _loaded(self) -> tuple[Numerics, tuple[str, ...]]:
        for kind, value in self._received():
            if kind == "error":
                raise value
            numerics, skipped = value
            return numerics, skipped
        raise EngineUnavailableError(f"The engine crashed when it was loaded ({self._ending()}). Use another --engine.")

    def _until_it_ends(self, progress: RunProgress | None) -> Generator[SlideOutcome, None, bool]:
        """The outcomes of one worker; returns whether slides are left because it died."""
        taken = done = 0
        for kind, value in self._received():
            match kind:
                case "taken":
                    taken += 1
                    self._taken_at = utc_now()
                case "progress" if progress is not None:
                    progress(value)
                case "outcome":
                    done += 1
                    yield value
                case "error":
                    raise value
                case "end":
                    self._process.join()
                    return False
        work = self._work
        left = work.requests[done:]
        if done < work.alone:
            yield self._crashed(left[0])
            left, alone = left[1:], work.alone - done - 1
        elif taken > done:
            alone = taken - done
        else:
            raise NativeCrashError(f"The process that scores died between two slides ({self._ending()}). Run it again.")
        self._work = _Work(work.load, left, work.out, work.options, alone, before=self._slides - len(left))
        return bool(left)

    def _received(self) -> Iterator[tuple[str, Any]]:
        """The worker's messages, up to its end."""
        while True:
            try:
                message = self._messages.recv()
            except (EOFError, OSError):
                return
            yield message

    def _last_outcomes(self) -> Iterator[SlideOutcome]:
        """The outcomes of a worker that was asked to stop, as long as it may take."""
        until = time.monotonic() + STOP_SECONDS
        with suppress(EOFError, OSError):
            while self._messages.poll(max(0.0, until - time.monotonic())):
                kind, value = self._messages.recv()
                if kind == "outcome":
                    yield value

    def _crashed(self, request: SlideRequest) -> SlideOutcome:
        case = request.case
        slide_id = "" if self._work.options.hide_names else case.id
        message = (
            f"A library crashed on this slide ({self._ending()}), also when the slide was scored alone. Copy the slide "
            "again; if that does not help, report it with `mminfer doctor`'s output."
        )
        return SlideOutcome(
            id=slide_id,
            case_id=case.case_id,
            exit_code=NativeCrashError.exit_code,
            message=message,
            stage="in the worker",
            seconds=0.0,
            started=self._taken_at,
            finished=utc_now(),
        )

    def _ending(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit {code}"


def _work(work: _Work, received: Connection, messages: Connection, parent: int) -> None:
    """The worker: scores what is left, and says what it takes, how far it is, and how each slide ended."""
    received.close()  # with it open, a message that nobody reads would block for ever
    # The kernel kills this process when its parent ends: nothing would read its messages.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
    stopping = threading.Event()
    # Ctrl-C reaches this process, too; its parent says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    try:
        scorer = work.load()
        messages.send(("loaded", (scorer.numerics, scorer.skipped)))
        batches = [*([request] for request in work.requests[: work.alone]), work.requests[work.alone :]]
        before = work.before
        for batch in batches:
            tell = partial(_tell, messages, stopping, before)
            slides = _announced(batch, messages, stopping)
            for outcome in score_slides(slides, scorer, work.out, options=work.options, progress=tell):
                messages.send(("outcome", outcome))
            before += len(batch)
        messages.send(("end", None))
        # Every file is written and every thread has ended; to free an engine bit by bit takes a tenth of a second.
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - it is raised again in the caller's process
        with suppress(OSError):  # unless nobody reads
            messages.send(("error", error))
    except _Stopped:
        pass  # the caller's process says so


class _Stopped(BaseException):
    """The caller's process asked this one to stop."""


def _unless(stopping: threading.Event) -> None:
    if stopping.is_set():
        raise _Stopped


def _tell(messages: Connection, stopping: threading.Event, before: int, step: RunStep) -> None:
    _unless(stopping)
    messages.send(("progress", replace(step, slide=before + step.slide)))


def _announced(
    requests: Sequence[SlideRequest], messages: Connection, stopping: threading.Event
) -> Iterator[SlideRequest]:
    for request in requests:
        _unless(stopping)
        messages.send(("taken", None))
        yield request
