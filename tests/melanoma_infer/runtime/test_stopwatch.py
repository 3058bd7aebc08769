"""Stages are timed one by one, also where one runs within another."""

from __future__ import annotations

import pytest

from melanoma_infer.runtime import stopwatch
from melanoma_infer.runtime.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def pass_seconds(seconds: float) -> None:
        now[0] += seconds

    return pass_seconds


def test_a_stage_within_another_counts_once(clock):
    watch = Stopwatch()
    with watch.timing("outer"):
        clock(1)
        with watch.timing("inner"):
            clock(2)
            with watch.timing("innermost"):
                clock(4)
        with watch.timing("inner"):
            clock(8)
        clock(16)
    assert watch.rounded_ms == {"innermost": 4000, "inner": 10000, "outer": 17000}


def test_waiting_for_items_that_wait_for_others(clock):
    """An engine that draws its tiles from a reader: the reader's time is not the engine's."""
    watch = Stopwatch()

    def read():
        for i in range(3):
            clock(1)
            yield i

    def inferred(tiles):
        for tile in tiles:
            clock(10)
            yield tile

    for _ in watch.waiting("infer", inferred(watch.waiting("wait", read()))):
        clock(100)
    assert watch.rounded_ms == {"wait": 3000, "infer": 30000}


def test_what_fails_within_a_stage_within_another_is_the_inner_stage(clock):
    watch = Stopwatch()

    def read(fails: bool):
        clock(1)
        if fails:
            raise EOFError
        yield 0

    with pytest.raises(EOFError):
        list(watch.waiting("infer", (item for item in watch.waiting("wait", read(fails=True)))))
    assert watch.stage == "wait"
    assert watch.rounded_ms == {"wait": 1000, "infer": 0}


def test_what_fails_after_the_stage_within_it_is_the_outer_stage(clock):
    watch = Stopwatch()

    def inferred(tiles):
        for _ in tiles:
            raise EOFError
            yield

    with pytest.raises(EOFError):
        list(watch.waiting("infer", inferred(watch.waiting("wait", iter([1])))))
    assert watch.stage == "infer"
