"""The time, as a watcher sees it."""

from __future__ import annotations

import time
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Time that passes, and the time of day."""

    def passed_s(self) -> float:
        """Seconds since some moment; never set back."""

    def now_s(self) -> float:
        """The time of day in seconds since 1970 (UTC)."""

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the watcher is asked to stop."""


class SystemClock:
    """This computer's time.

    Args:
        stopping: set, it ends a sleep.
    """

    def __init__(self, stopping: Event) -> None:
        self._stopping = stopping

    def passed_s(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    def now_s(self) -> float:
        """The time of day in seconds since 1970 (UTC)."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the watcher is asked to stop."""
        self._stopping.wait(seconds)
