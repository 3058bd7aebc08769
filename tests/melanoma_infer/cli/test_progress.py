"""How far a run is, told with a clock that the test turns."""

from __future__ import annotations

import io
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta

import pytest

from melanoma_infer.cli import console
from melanoma_infer.cli.progress import Pace, duration, shown_progress
from melanoma_infer.pipeline.request import RunStep

START = datetime(2026, 11, 29, 6, 23, 11, tzinfo=UTC)


class Clock:
    """A clock in seconds that only moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> str:
        return f"{START + timedelta(seconds=self.seconds):%Y-%m-%dT%H:%M:%SZ}"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def scored(tell, clock, slide, tiles, seconds_a_tile):
    for done in range(1, tiles + 1):
        clock.seconds += seconds_a_tile
        tell(RunStep(slide, "tiles", done, tiles))
    tell(RunStep(slide, "write"))


@pytest.fixture
def clock():
    return Clock()


@contextmanager
def shown(stream, slides, clock):
    """`shown_progress` on this stream; pytest would put its own in place of one that a fixture sets."""
    with redirect_stderr(stream), shown_progress(slides, clock=clock, now=clock.now) as tell:
        yield tell


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_off_a_terminal_a_line_with_the_time_comes_every_30_seconds(clock):
    err = io.StringIO()
    with shown(err, 10, clock) as tell:
        scored(tell, clock, 1, 426, 0.07)  # 29.82 s
        assert err.getvalue() == ""
        scored(tell, clock, 2, 426, 0.07)
        scored(tell, clock, 3, 426, 0.07)
    lines = err.getvalue().splitlines()
    assert lines == [
        "2026-11-29T06:23:41Z slide 2 of 10, tile 3 of 426, 14.3 tiles/s, about 5 min left",
        "2026-11-29T06:24:11Z slide 3 of 10, tile 6 of 426, 14.3 tiles/s, about 4 min left",
    ]


def test_a_short_run_prints_none(clock):
    err = io.StringIO()
    with shown(err, 2, clock) as tell:
        scored(tell, clock, 1, 100, 0.1)
        scored(tell, clock, 2, 100, 0.1)
    assert err.getvalue() == ""


def test_with_quiet_nothing_is_shown_on_a_terminal_either(clock, terminal):
    with console.loudness(quiet=True, verbose=False), shown(terminal, 1, clock) as tell:
        scored(tell, clock, 1, 100, 10.0)
    assert terminal.getvalue() == ""


def test_on_a_terminal_one_line_is_redrawn_and_removed_at_the_end(clock, terminal):
    with shown(terminal, 3, clock) as tell:
        scored(tell, clock, 1, 4, 1.0)
        scored(tell, clock, 2, 4, 1.0)
    drawn = [line.rstrip() for line in terminal.getvalue().split("\r")]
    assert "slide 2 of 3 ━━━━━━━━━━━━──────────── tile 2 of 4, 1.0 tiles/s, about 10 s left" in drawn
    assert "slide 1 of 3 ━━━━━━━━━━━━━━━━━━━━ tile 4 of 4, writing reports, about 10 s left" in drawn
    assert max(map(len, drawn)) < 80 + 1
    assert drawn[-2:] == ["", ""]


def test_what_is_printed_replaces_the_line(clock, terminal):
    with redirect_stdout(terminal), shown(terminal, 1, clock) as tell:
        clock.seconds += 1
        tell(RunStep(1, "tiles", 1, 4))
        console.say("a result")
    _, line, blank, printed = terminal.getvalue().split("\r")
    assert (line.startswith("slide 1 of 1 ━"), blank.strip(), len(blank)) == (True, "", len(line))
    assert printed == "a result\n"


@pytest.mark.parametrize("width", [20, 30, 40, 60, 79, 200])
def test_the_line_fits_any_width_and_cuts_no_number(clock, width):
    pace = Pace(10_000, clock)
    clock.seconds = 1000.0
    pace.take(RunStep(37, "tiles", 1, 426))
    clock.seconds = 1010.0
    pace.take(RunStep(37, "tiles", 120, 426))
    line = pace.line(width)
    assert len(line) <= width
    assert line.startswith("slide 37 of 10000")
    words = {"slide 37 of 10000", *pace.words()}
    text = line.replace("━", "").replace("─", "").replace("of 10000  ", "of 10000, ")
    assert {part.strip() for part in text.split(",")} <= words | {""}


def test_the_time_left_counts_slides_that_were_scored_and_not_those_skipped(clock):
    pace = Pace(10, clock)
    pace.take(RunStep(1, "write"))  # two were finished before
    pace.take(RunStep(2, "write"))
    assert pace.left_s is None
    scored(pace.take, clock, 3, 10, 2.0)
    assert pace.left_s == pytest.approx(7 * 20.0)
    clock.seconds += 10
    pace.take(RunStep(4, "tiles", 5, 10))
    assert pace.left_s == pytest.approx(6.5 * 20.0)


def test_the_last_slide_s_reports_are_named_and_no_time_is_left(clock):
    pace = Pace(1, clock)
    scored(pace.take, clock, 1, 10, 1.0)
    assert pace.words() == ["slide 1 of 1", "tile 10 of 10", "writing reports"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "5 s"), (36, "40 s"), (56, "1 min"), (61, "2 min"), (3590, "1 h 0 min"), (12_000, "3 h 20 min")],
)
def test_a_duration_is_rounded_up(seconds, words):
    assert duration(seconds) == words
