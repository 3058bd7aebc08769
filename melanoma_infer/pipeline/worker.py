"""The process that scores: it asks for slides one by one, and no pixels leave it. `batch.py` is the other end."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from melanoma_infer.card import ModelCard
from melanoma_infer.engines.base import Numerics, Tell
from melanoma_infer.pipeline.head_start import HeadStart
from melanoma_infer.pipeline.request import RunOptions, RunStep, SlideRequest

if TYPE_CHECKING:
    from melanoma_infer.pipeline.scorer import Scorer

PR_SET_PDEATHSIG = 1
"""From Linux's prctl.h."""


class LoadScorer(Protocol):
    """Makes the scorer, in the process that scores."""

    def __call__(self, *, tell: Tell) -> Scorer:
        """The scorer; `tell` is called before an engine is built, which takes minutes."""
        ...


@dataclass(frozen=True)
class Computing:
    """What a scorer computes with, once it is loaded."""

    numerics: Numerics
    skipped: tuple[str, ...]
    """Engines that were tried before this one, and why they were skipped."""
    remarks: tuple[str, ...]
    """What runs other than it should, without changing a number."""

    @classmethod
    def of(cls, scorer: Scorer) -> Computing:
        """What this scorer computes with."""
        return cls(scorer.numerics, scorer.skipped, scorer.remarks)


@dataclass(frozen=True)
class Work:
    """What a worker is given at its start."""

    load: LoadScorer
    out: Path
    options: RunOptions
    first: tuple[SlideRequest, ModelCard] | None = None
    """The slide that comes first and the bundle's card, for a head start."""


def run_worker(
    work: Work, asked: Connection, messages: Connection, others: tuple[Connection, Connection], parent: int
) -> None:
    """Ask for slides, score them, and say how far it is and how each slide ended, until nobody answers."""
    for end in others:  # with them open, the end of the other process would not be seen
        end.close()
    # The kernel kills this process when its parent ends: nothing would read its messages.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
    stopping = threading.Event()
    # Ctrl-C reaches this process, too; its parent says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    try:
        head_start = HeadStart(*work.first, full_digest=work.options.full_digest) if work.first else None
        scorer = work.load(tell=lambda text: messages.send(("building", text)))
        from melanoma_infer.pipeline.flow import score_slides
        from melanoma_infer.store.output import OutputFolder

        messages.send(("loaded", Computing.of(scorer)))
        tell = partial(_tell, messages, stopping)
        while True:
            slides = _requested(asked, messages, stopping)
            out = OutputFolder(work.out)  # what one batch scored says nothing about the next
            for outcome in score_slides(
                slides, scorer, out, options=work.options, progress=tell, head_start=head_start
            ):
                messages.send(("outcome", outcome))
            head_start = None
            messages.send(("end", None))
    except Exception as error:  # noqa: BLE001 - it is raised again in the caller's process
        with suppress(OSError):  # unless nobody reads
            messages.send(("error", error))
    except _Stopped:
        # Every file is written and every thread has ended; to free an engine bit by bit takes a tenth of a second.
        os._exit(0)


class _Stopped(BaseException):
    """The caller's process asked this one to stop, or wants nothing more."""


def _unless(stopping: threading.Event) -> None:
    if stopping.is_set():
        raise _Stopped


def _tell(messages: Connection, stopping: threading.Event, step: RunStep) -> None:
    _unless(stopping)
    messages.send(("progress", step))


def _requested(asked: Connection, messages: Connection, stopping: threading.Event) -> Iterator[SlideRequest]:
    """The slides of one batch, each asked for when it is wanted."""
    while True:
        _unless(stopping)
        messages.send(("next", None))
        try:
            request = asked.recv()
        except EOFError:
            raise _Stopped from None
        if request is None:
            return
        yield request
