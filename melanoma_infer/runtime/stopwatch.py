"""How long each stage of a slide took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class Stopwatch:
    """Milliseconds spent in each stage; `stage` is the one that runs or ran last, in which a failure happened."""

    spent_ms: dict[str, float] = field(default_factory=dict)
    stage: str = "open"
    _within: float = 0.0
    """Milliseconds of the stages nested in the one that runs."""
    _depth: int = 0

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage, without that of stages nested in it."""
        outer_stage, outer, started = self.stage, self._within, time.perf_counter()
        self.stage, self._within = stage, 0.0
        self._depth += 1
        try:
            yield
            if self._depth > 1:
                self.stage = outer_stage
        finally:
            self._depth -= 1
            spent_ms = (time.perf_counter() - started) * 1000
            self.spent_ms[stage] = self.spent_ms.get(stage, 0.0) + spent_ms - self._within
            self._within = outer + spent_ms

    def waiting(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time spent waiting for each is added to a stage."""
        iterator = iter(items)
        while True:
            with self.timing(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def add(self, other: Stopwatch) -> None:
        """Add what another stopwatch counted, for example in another thread."""
        for stage, ms in other.spent_ms.items():
            self.spent_ms[stage] = self.spent_ms.get(stage, 0.0) + ms

    @property
    def rounded_ms(self) -> dict[str, float]:
        """The stages' times, rounded to microseconds."""
        return {stage: round(ms, 3) for stage, ms in self.spent_ms.items()}
