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
    """Milliseconds spent in each stage; `stage` is the one that began last, and so the one in which a failure fell."""

    spent_ms: dict[str, float] = field(default_factory=dict)
    stage: str = "open"

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        self.stage, started = stage, time.perf_counter()
        try:
            yield
        finally:
            self.spent_ms[stage] = self.spent_ms.get(stage, 0.0) + (time.perf_counter() - started) * 1000

    def waiting(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, the time until each is there added to a stage."""
        iterator = iter(items)
        while True:
            with self.timing(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    @property
    def rounded_ms(self) -> dict[str, float]:
        """The stages, to a microsecond."""
        return {stage: round(ms, 3) for stage, ms in self.spent_ms.items()}
