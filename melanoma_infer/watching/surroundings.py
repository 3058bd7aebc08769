"""What a watcher is told, and what it needs of the world; tests give it a world of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from melanoma_infer.pipeline.request import SlideRequest
from melanoma_infer.result import SlideOutcome
from melanoma_infer.store.output import OutputFolder
from melanoma_infer.watching.arrivals import Members
from melanoma_infer.watching.clock import Clock

WATCH = "watch"
"""The folder of all watchers' records, in the output folder."""


@dataclass(frozen=True)
class WatchSettings:
    """When a slide has arrived, and how often it is tried."""

    stable_for_s: float = 60.0
    """Seconds for which nobody may have written to a slide: longer than any pause of the writer."""
    open_within_s: float = 600.0
    """Seconds after its last change within which a slide must open; after them it is scored, and fails."""
    attempts: int = 3
    """How often a slide is tried."""
    hide_names: bool = False
    """Name no slide in records, events and status."""
    once: bool = False
    """End when every slide in the folder has its record. A slide that does not open fails at once."""


@dataclass(frozen=True)
class Place:
    """What is watched, and where results go."""

    folder: Path
    out: OutputFolder

    @property
    def records(self) -> Path:
        """The folder of all watchers' records."""
        return self.out.path / WATCH


class Score(Protocol):
    """Scores slides, which are taken one ahead; `idle` is called all the while."""

    def __call__(self, requests: Iterable[SlideRequest], idle: Callable[[], None], /) -> Iterable[SlideOutcome]:
        """The outcomes, in the order of the requests."""


class Tell(Protocol):
    """Is told what happens. No fact is a path or a patient's value."""

    def __call__(self, event: str, *, slide: str = "", **facts: object) -> None:
        """Take note of an event."""


@dataclass(frozen=True)
class Surroundings:
    """What a watcher needs of the world."""

    clock: Clock
    stop_signal: Callable[[], int]
    """The number of the signal that asked this process to stop; 0 if none did."""
    request_of: Callable[[Path, Mapping[Path, Members]], SlideRequest]
    """The request for a slide, given all slides in the folder with their members."""
    why_not_open: Callable[[SlideRequest], str | None]
    """Why a slide does not open; None if it does."""
    tell: Tell
