"""`score_slides` in a process of its own: a native library that crashes costs one slide, not the run.

The worker asks for slides and sends messages; no pixels cross between the processes. The caller's process keeps the
record of the run. If the worker dies, the slides that were in progress are scored again in a fresh worker, one at a
time; a slide that is alone in a worker when it dies has failed, and the run goes on without it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from melanoma_infer.card import ModelCard
from melanoma_infer.engines.base import Tell
from melanoma_infer.errors import EngineUnavailableError, NativeCrashError
from melanoma_infer.pipeline.request import RunOptions, RunProgress, RunStep, SlideRequest
from melanoma_infer.pipeline.worker import Computing, LoadScorer, Work, run_worker
from melanoma_infer.result import SlideOutcome
from melanoma_infer.runtime.utc import utc_now

RUNTIMES = frozenset({"openvino", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx"})
"""Libraries whose threads do not survive a fork."""
STOP_SECONDS = 10.0
"""How long a worker that is asked to stop may take, before it is killed."""
IDLE_SECONDS = 0.5
"""How often `idle` is called while a worker says nothing."""


Idle = Callable[[], None]


class Batch(Protocol):
    """A scorer that stays loaded and scores slides whenever there are some, in this process or in a worker."""

    computing: Computing
    """What computes the numbers, once it is loaded."""

    def load(self) -> None:
        """Wait until the engine is loaded.

        Raises:
            MminferError: what the loading raises.
            EngineUnavailableError: the engine crashed when it was loaded.
        """

    def outcomes(
        self, requests: Iterable[SlideRequest], progress: RunProgress | None = None, idle: Idle | None = None
    ) -> Generator[SlideOutcome, None, None]:
        """The outcomes, in the order of the requests; may be called again when they have ended.

        Args:
            requests: taken one ahead, in this process.
            progress: called after each tile, and when a slide's tiles are done.
            idle: called after each tile, in a worker also every half second. What it raises stops the scoring.
        """

    def close(self) -> None:
        """End the worker, if there is one."""


def score_batch(
    load: LoadScorer,
    out: Path,
    options: RunOptions,
    *,
    first: tuple[SlideRequest, ModelCard] | None = None,
    tell: Tell = lambda _text: None,
) -> Batch:
    """A scorer in a worker, where a process can be forked safely; else in this process. A worker begins to load it.

    Args:
        load: makes the scorer, in the process that scores.
        out: the output folder.
        options: what holds for all slides.
        first: the slide that comes first and the bundle's card: a worker plans it while the engine is being loaded.
        tell: called in this process before an engine is built, which takes minutes.
    """
    if sys.platform == "linux" and threading.active_count() == 1 and RUNTIMES.isdisjoint(sys.modules):
        return _Workers(Work(load, out, options, first), tell)
    return _InThisProcess(load, out, options, tell)


class _InThisProcess:
    def __init__(self, load: LoadScorer, out: Path, options: RunOptions, tell: Tell) -> None:
        self._load, self._out, self._options, self._tell = load, out, options, tell

    def load(self) -> None:
        """Load the engine."""
        self._scorer = self._load(tell=self._tell)
        self.computing = Computing.of(self._scorer)

    def outcomes(
        self, requests: Iterable[SlideRequest], progress: RunProgress | None = None, idle: Idle | None = None
    ) -> Generator[SlideOutcome, None, None]:
        """The outcomes, in the order of the requests."""
        from melanoma_infer.pipeline.flow import score_slides
        from melanoma_infer.store.output import OutputFolder

        tell = partial(_call, progress, idle)
        out = OutputFolder(self._out)  # what one batch scored says nothing about the next
        return score_slides(requests, self._scorer, out, options=self._options, progress=tell)

    def close(self) -> None:
        """There is no worker."""


class _Workers:
    """A worker, and another one after each that died."""

    def __init__(self, work: Work, tell: Tell) -> None:
        self._work, self._tell = work, tell
        self._taken_at = utc_now()
        self._start()

    def load(self) -> None:
        """Wait until the engine is loaded."""
        self.computing = self._loaded()
        self._work = replace(self._work, first=None)

    def outcomes(
        self, requests: Iterable[SlideRequest], progress: RunProgress | None = None, idle: Idle | None = None
    ) -> Generator[SlideOutcome, None, None]:
        """The outcomes, in the order of the requests."""
        has_ended = False
        try:
            yield from self._outcomes(iter(requests), progress, idle)
            has_ended = True
        except GeneratorExit:  # nobody takes another outcome
            raise
        except BaseException:  # interrupted: slides whose files are written are still told
            self._process.terminate()
            self._requests.close()
            yield from self._last_outcomes()
            raise
        finally:
            if not has_ended:
                self.close()

    def close(self) -> None:
        """End the worker."""
        self._process.terminate()
        self._requests.close()
        self._messages.close()  # a worker that waits for its messages to be read ends, too
        self._process.join(STOP_SECONDS)
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._messages, sender = context.Pipe(duplex=False)
        asked, self._requests = context.Pipe(duplex=False)
        # A daemon is stopped, not waited for, when this process ends.
        self._process = context.Process(
            target=run_worker,
            args=(self._work, asked, sender, (self._messages, self._requests), os.getpid()),
            daemon=True,
        )
        self._process.start()
        sender.close()  # the end of the worker is then the end of its messages
        asked.close()

    def _loaded(self) -> Computing:
        for kind, value in self._received():
            match kind:
                case "building":
                    self._tell(value)
                case "error":
                    raise value
                case "loaded":
                    computing: Computing = value
                    return computing
        if self._work.first is not None:  # perhaps it was the slide: without a head start, it crashes in its turn
            self.close()
            self._work = replace(self._work, first=None)
            self._start()
            return self._loaded()
        raise EngineUnavailableError(f"The engine crashed when it was loaded ({self._ending()}). Use another --engine.")

    def _outcomes(
        self, requests: Iterator[SlideRequest], progress: RunProgress | None, idle: Idle | None
    ) -> Generator[SlideOutcome, None, None]:
        """The outcomes, each slide that was in progress when a worker died being scored again alone."""
        suspects, done = deque[SlideRequest](), 0
        while True:
            is_alone = bool(suspects)
            first = suspects.popleft() if is_alone else next(requests, None)
            if first is None:
                return
            if not self._process.is_alive():
                self.close()
                self._start()
                self._loaded()
            taken = deque[SlideRequest]()
            tell = partial(_call, progress and partial(_tell_after, progress, done), idle)
            for outcome in self._until_it_ends(chain((first,), () if is_alone else requests), taken, tell, idle):
                done += 1
                yield outcome
            if is_alone and taken:
                done += 1
                yield self._crashed(taken[0])
            else:
                suspects.extend(taken)

    def _until_it_ends(
        self, requests: Iterator[SlideRequest], taken: deque[SlideRequest], progress: RunProgress, idle: Idle | None
    ) -> Iterator[SlideOutcome]:
        """The outcomes of the requests; those left in `taken` were in progress when the worker died."""
        for kind, value in self._received(idle):
            match kind:
                case "next":
                    request = next(requests, None)
                    if request is not None:
                        taken.append(request)
                        self._taken_at = utc_now()
                    with suppress(OSError):  # it has died
                        self._requests.send(request)
                case "progress":
                    progress(value)
                case "outcome":
                    taken.popleft()
                    yield value
                case "error":
                    raise value
                case "end":
                    return
        if not taken:
            raise NativeCrashError(f"The process that scores died between two slides ({self._ending()}). Run it again.")

    def _received(self, idle: Idle | None = None) -> Iterator[tuple[str, Any]]:
        """The worker's messages, up to its end."""
        while True:
            try:
                is_there = self._messages.poll(IDLE_SECONDS if idle else None)
                message = self._messages.recv() if is_there else None
            except (EOFError, OSError):
                self._process.join()
                return
            if message is not None:
                yield message
            elif idle is not None:
                idle()

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


def _call(progress: RunProgress | None, idle: Idle | None, step: RunStep) -> None:
    if progress is not None:
        progress(step)
    if idle is not None:
        idle()


def _tell_after(progress: RunProgress, before: int, step: RunStep) -> None:
    """Tell a step of a batch that began after `before` slides of the run."""
    progress(replace(step, slide=before + step.slide))
