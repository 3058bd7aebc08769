"""`mminfer watch`: score each slide that arrives in a folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import typer

from melanoma_infer.cli import options as opt
from melanoma_infer.cli.console import loudness, note
from melanoma_infer.cli.requests import SlideOptions, arrived_request
from melanoma_infer.cli.run_log import RunLog, run_log
from melanoma_infer.cli.running import recorded_batch
from melanoma_infer.cli.score import SOME_FAILED, EngineOptions, opened_bundle, tell_engine, tell_outcome
from melanoma_infer.errors import UsageError


def watch(
    context: typer.Context,
    folder: opt.WatchedArgument,
    out: opt.OutOption,
    stable_for: opt.StableForOption = 60.0,
    open_within: opt.OpenWithinOption = 600.0,
    attempts: opt.AttemptsOption = 3,
    once: opt.OnceOption = False,
    mpp: opt.MppOption = None,
    stain: opt.StainOption = None,
    specimen: opt.SpecimenOption = None,
    reader: opt.ReaderOption = "auto",
    full_digest: opt.FullDigestOption = False,
    tile_um: opt.TileUmOption = None,
    stride_um: opt.StrideUmOption = None,
    tissue: opt.TissueOption = "auto",
    bundle: opt.BundleOption = "demo",
    require_tissue_model: opt.RequireTissueModelOption = False,
    aggregate: opt.AggregateOption = None,
    engine: opt.EngineOption = "auto",
    engine_file: opt.EngineFileOption = None,
    precision: opt.PrecisionOption = None,
    threads: opt.ThreadsOption = None,
    device: opt.DeviceOption = None,
    hide_names: opt.HideNamesOption = False,
    json: opt.JsonLinesOption = False,
    verbose: opt.VerboseOption = False,
    quiet: opt.QuietOption = False,
    log_json: opt.LogJsonOption = None,
) -> None:
    """Score each slide that arrives in a folder, until the command is stopped. The slides are never changed."""
    from melanoma_infer.bundle.contents import bundle_contents
    from melanoma_infer.pipeline.request import RunOptions
    from melanoma_infer.runtime.privacy import redacted_argv
    from melanoma_infer.slides.choice import reader_choice
    from melanoma_infer.store.output import OutputFolder
    from melanoma_infer.watching.clock import SystemClock
    from melanoma_infer.watching.opening import why_not_open
    from melanoma_infer.watching.surroundings import Place, Surroundings, WatchSettings
    from melanoma_infer.watching.watcher import Watcher
    from melanoma_infer.watching.watchers import Watchers

    command = redacted_argv(sys.argv[1:], {name for param in context.command.params for name in param.opts})
    with loudness(quiet=quiet, verbose=verbose), run_log(log_json) as log:
        require_apart(folder, out)
        wanted = SlideOptions([], reader_choice(reader), mpp, tile_um, stride_um, tissue, aggregate, stain, specimen)
        wanted.require_mask()
        settings = wanted.settings()
        opened = opened_bundle(bundle_contents(bundle), require_tissue_model=require_tissue_model)
        compute = EngineOptions(engine, precision, threads, device, engine_file)
        batch = recorded_batch(
            opened,
            compute.loader(opened),
            out,
            command=command,
            options=RunOptions(hide_names, full_digest=full_digest),
            tell=partial(tell_outcome, json=json),
            tell_engine=partial(tell_engine, opened, json=json),
            log=log,
        )
        place = Place(folder, OutputFolder(out))
        work = place.out.run_key({"bundle": opened.digest, "numerics": vars(batch.numerics), "settings": settings})
        arrives = WatchSettings(stable_for, open_within, attempts, hide_names=hide_names, once=once)
        with closing(batch), stopping_later() as stop:
            around = Surroundings(
                clock=SystemClock(stop.asked),
                stop_signal=lambda: stop.signal,
                request_of=partial(arrived_request, settings=settings, reader=wanted.reader),
                why_not_open=why_not_open,
                tell=partial(_tell, log),
            )
            watcher = Watcher(place, Watchers(place.records / "watchers"), work, arrives, around)
            watcher.run(lambda requests, idle: batch.outcomes(requests, idle=idle))
        if watcher.failures:
            raise typer.Exit(SOME_FAILED)


WORDS = {
    "slide-waiting": "waiting for the rest of it: {why}",
    "slide-retry": "will be tried again in {in_s:.0f} s",
    "slide-given-up": "given up after {attempts} attempts; its record is in watch/dead-letter",
    "slide-changed": "was written to while it was scored, so it is scored again when it is complete",
    "slide-gone": "was removed before it was scored",
    "lease-taken-over": "taken over from the watcher {holder}, which has died",
    "lease-lost": "was taken over by another watcher",
    "folders-unreadable": "{folders} folders cannot be read",
}
"""What the user is told of an event; of the others, the outcome is told."""


def _tell(log: RunLog, event: str, *, slide: str = "", **facts: Any) -> None:
    log.event(event, slide=slide, **facts)
    if event in WORDS:
        note(f"{slide or 'the watched folder'}: {WORDS[event].format(**facts)}")


class Stop:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.asked, self.signal = Event(), 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        self.signal = number
        self.asked.set()


@contextmanager
def stopping_later() -> Iterator[Stop]:
    """Within the block, Ctrl-C and SIGTERM are only noted: they come in the middle of anything, such as of a record."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_apart(folder: Path, out: Path) -> None:
    """Require that the watched folder exists and does not hold the output folder.

    Raises:
        UsageError: it does not, or it does.
    """
    if not os.path.isdir(folder):
        raise UsageError("There is no folder FOLDER to watch. Create it, or mount the share that it is on.")
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
        raise UsageError("--out is in the watched folder. Choose a folder outside it.")
