"""How far a run over many slides is: a line at the bottom of a terminal; elsewhere a line with the time now and then.

A run that ends before the first line is due prints none.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from melanoma_infer.cli.console import clear_status, is_quiet, say_error, show_status
from melanoma_infer.cli.tables import terminal_width
from melanoma_infer.runtime.utc import utc_now

if TYPE_CHECKING:
    from melanoma_infer.pipeline.request import RunProgress, RunStep

LINES_S = 30.0
"""Seconds between two lines where there is no terminal."""
DRAWN_S = 0.1
"""Seconds between two drawings of the terminal's line."""
BAR_MIN, BAR_MAX = 5, 30
"""Characters of the bar; it is left out where the terminal has no room for the shortest."""

Clock = Callable[[], float]


Step = TypeVar("Step", contravariant=True)


class Paced(Protocol[Step]):
    """What is known of a long run from the steps that it told."""

    def take(self, step: Step) -> None:
        """Count a step."""

    def words(self) -> list[str]:
        """Where the run is, and the time left."""

    def line(self, width: int) -> str:
        """The same on one line."""


@contextmanager
def shown(
    pace: Paced[Step], *, often: Callable[[Step], bool], clock: Clock = time.monotonic, now: Callable[[], str] = utc_now
) -> Iterator[Callable[[Step], None]]:
    """A callback that shows the pace of a run; with --quiet it shows nothing.

    Args:
        pace: takes each step.
        often: whether steps like this one come often, so that few of them are drawn.
        clock: in seconds.
        now: the time of day.
    """
    shown_s = clock()

    def draw(step: Step) -> None:
        nonlocal shown_s
        pace.take(step)
        if not often(step) or clock() - shown_s >= DRAWN_S:
            shown_s = clock()
            show_status(pace.line(terminal_width() - 1))

    def tell(step: Step) -> None:
        nonlocal shown_s
        pace.take(step)
        if clock() - shown_s >= LINES_S:
            shown_s = clock()
            say_error(f"{now()} {', '.join(pace.words())}")

    if is_quiet():
        yield lambda _step: None
    elif sys.stderr.isatty():
        try:
            yield draw
        finally:
            clear_status()
    else:
        yield tell


@contextmanager
def shown_progress(
    slides: int, *, clock: Clock = time.monotonic, now: Callable[[], str] = utc_now
) -> Iterator[RunProgress]:
    """A callback that shows how far a run over `slides` slides is; with --quiet it shows nothing."""
    with shown(Pace(slides, clock), often=lambda step: step.doing == "tiles", clock=clock, now=now) as tell:
        yield tell


@dataclass
class Pace:
    """Where a run is, its throughput and the time left, from the steps that the run told."""

    slides: int
    clock: Clock = time.monotonic
    slide: int = 1
    doing: str = "open"
    tiles_done: int = 0
    tiles: int = 0
    _scored: int = 0
    """Slides of which every tile is done. Slides that were skipped have no tiles and say nothing about the others."""
    _started_s: float = field(init=False)
    _first_tile_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_s = self._first_tile_s = self.clock()

    def take(self, step: RunStep) -> None:
        """Count a step."""
        if step.slide != self.slide:
            self._scored += self.tiles > 0 and self.tiles_done == self.tiles
            self.slide, self.tiles_done, self.tiles = step.slide, 0, 0
        self.doing = step.doing
        if step.doing == "tiles":
            self.tiles_done, self.tiles = step.tiles_done, step.tiles
            if step.tiles_done == 1:
                self._first_tile_s = self.clock()

    @property
    def tiles_per_s(self) -> float | None:
        """Throughput of the slide in the engine, after its first tile."""
        spent_s = self.clock() - self._first_tile_s
        return (self.tiles_done - 1) / spent_s if self.tiles_done > 1 and spent_s > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the run, if the slides that are left take as long as those so far."""
        share = self.tiles_done / self.tiles if self.tiles else 0.0
        done = self._scored + share
        if done == 0:
            return None
        return (self.clock() - self._started_s) / done * (self.slides - self.slide + 1 - share)

    def words(self) -> list[str]:
        """The slide, its tile, what is done to it, and the time left, as far as they are known."""
        words = [f"slide {self.slide} of {self.slides}"]
        if self.tiles:
            words.append(f"tile {self.tiles_done} of {self.tiles}")
        if self.tiles and self.doing == "write":
            words.append("writing reports")
        elif self.tiles_per_s is not None:
            words.append(f"{self.tiles_per_s:.1f} tiles/s")
        if self.left_s:
            words.append(f"about {duration(self.left_s)} left")
        return words

    def line(self, width: int) -> str:
        """`words` with a bar, on one line of at most `width` characters; what has no room is left out."""
        first, *others = self.words()
        while others and len(", ".join([first, *others])) > width:
            others.pop()
        text = ", ".join(others)
        room = min(BAR_MAX, width - len(first) - len(text) - 2)
        if not self.tiles or room < BAR_MIN:
            return ", ".join([first, *others])[:width]
        full = room * self.tiles_done // self.tiles
        return f"{first} {'━' * full}{'─' * (room - full)} {text}"


def duration(seconds: float) -> str:
    """A time in words, rounded up: "40 s", "12 min", "3 h 20 min"."""
    if seconds <= 55:
        return f"{max(5, math.ceil(seconds / 5) * 5)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
