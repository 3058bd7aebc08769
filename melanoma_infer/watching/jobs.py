"""The slides in a watcher's hands: each is leased, begun, and recorded when it has ended."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from melanoma_infer.errors import (
    GpuLostError,
    MemoryExhaustedError,
    MminferError,
    NativeCrashError,
    OutputError,
    TransientIOError,
)
from melanoma_infer.pipeline.request import SlideRequest
from melanoma_infer.result import SlideOutcome
from melanoma_infer.runtime.privacy import slide_name
from melanoma_infer.runtime.utc import in_utc
from melanoma_infer.slides.members import member_states
from melanoma_infer.watching.arrivals import Arrival, Arrivals
from melanoma_infer.watching.leases import Leases
from melanoma_infer.watching.ledger import Attempt, End, Ledger
from melanoma_infer.watching.surroundings import Surroundings, WatchSettings
from melanoma_infer.watching.watchers import Watchers

RETRY_S = 60.0
"""Before the second attempt; doubled before each further one."""
RETRIED = (TransientIOError.exit_code, MemoryExhaustedError.exit_code)
"""Exit codes after which a slide is tried again."""
STOPPING: dict[int, type[MminferError]] = {error.exit_code: error for error in (OutputError, GpuLostError)}
"""Exit codes that say nothing about the slide: every other slide would fail, too, so the watch ends with them."""


@dataclass(frozen=True)
class _Taken:
    """A slide that this watcher holds, and the attempt before this one."""

    arrival: Arrival
    before: Attempt


class Jobs:
    """The slides that this watcher holds, in the order in which they were taken.

    Args:
        ledger: the records of all slides.
        leases: of all watchers.
        watchers: all watchers, to know who has died.
        settings: how often a slide is tried.
        around: the clock, and who opens slides and is told.

    Methods raise OutputError or OSError if records cannot be written.
    """

    def __init__(
        self, ledger: Ledger, leases: Leases, watchers: Watchers, settings: WatchSettings, around: Surroundings
    ) -> None:
        self._ledger, self._leases, self._watchers = ledger, leases, watchers
        self._settings, self._around = settings, around
        self._taken: deque[_Taken] = deque()
        self._waiting: set[str] = set()
        self.failures = 0
        """Slides that failed or were given up."""

    def held(self) -> list[Arrival]:
        """The slides that this watcher holds."""
        return [taken.arrival for taken in self._taken]

    def label(self, arrival: Arrival) -> str:
        """How a slide is named in records and events."""
        return arrival.job if self._settings.hide_names else slide_name(arrival.path)

    def take(self, arrival: Arrival, arrivals: Arrivals) -> SlideRequest | None:
        """The request for a slide that is to be scored by this watcher now; None if it is not."""
        if self._ledger.attempt(arrival.job).not_before_s > self._around.clock.now_s() or not self._lease(arrival):
            return None
        self._taken.append(_Taken(arrival, self._ledger.attempt(arrival.job)))
        request = self._begun(self._taken[-1], arrivals)
        if request is None:
            self._release(self._taken.pop())
        return request

    def _lease(self, arrival: Arrival) -> bool:
        """Whether this watcher holds the slide now."""
        holder = self._leases.holder(arrival.job)
        if holder is None:
            return self._leases.take(arrival.job)
        is_dead = self._watchers.is_dead(holder, self._around.clock.passed_s())
        if not is_dead or not self._leases.take_over(arrival.job, holder):
            return False
        self._around.tell("lease-taken-over", slide=self.label(arrival), holder=holder)
        return True

    def _begun(self, taken: _Taken, arrivals: Arrivals) -> SlideRequest | None:
        arrival, attempts = taken.arrival, taken.before.number
        # Another watcher may have ended it between our look and our lease, and a writer may have come back.
        if self._ledger.has_ended(arrival.job) or not _is_unchanged(arrival):
            return None
        if attempts >= self._settings.attempts:
            self._end(taken, "dead-letter", attempts, _killed(taken.before))
            return None
        request = self._around.request_of(arrival.path, {each.path: each.members for each in arrivals})
        if (why := self._around.why_not_open(request)) and self._may_open_yet(arrival, arrivals):
            self._tell_waiting(arrival, why)
            arrivals.try_again(arrival)
            return None
        self._ledger.note(arrival.job, Attempt(attempts + 1))
        self._around.tell("slide-arrived", slide=self.label(arrival), attempt=attempts + 1)
        return request

    def _may_open_yet(self, arrival: Arrival, arrivals: Arrivals) -> bool:
        return not self._settings.once and arrivals.unchanged_s(arrival) < self._settings.open_within_s

    def _tell_waiting(self, arrival: Arrival, why: str) -> None:
        """Tell once why a slide is not scored yet; where names are hidden, by an exit code: the text may hold some."""
        if arrival.job not in self._waiting:
            self._waiting.add(arrival.job)
            shown = why.partition(":")[0] if self._settings.hide_names else why
            self._around.tell("slide-waiting", slide=self.label(arrival), why=shown)

    def settle(self, outcome: SlideOutcome) -> None:
        """Record how the slide ended that was taken first.

        Raises:
            OutputError, GpuLostError: it failed for a reason that every other slide would fail for.
        """
        if outcome.exit_code in STOPPING:
            raise STOPPING[outcome.exit_code](outcome.message)
        taken = self._taken[0]
        arrival, attempts = taken.arrival, taken.before.number + 1
        is_there = arrival.path.exists()
        if not self._leases.holds(arrival.job):
            self._around.tell("lease-lost", slide=self.label(arrival))
        elif not _is_unchanged(arrival) and (outcome.exit_code or is_there):
            self._ledger.note(arrival.job, taken.before)
            self._around.tell("slide-changed" if is_there else "slide-gone", slide=self.label(arrival))
        elif outcome.exit_code in RETRIED and attempts < self._settings.attempts:
            self._try_later(arrival, attempts, outcome)
        else:
            self._end(taken, _end_of(outcome), attempts, _facts(outcome))
        self._release(self._taken.popleft())

    def _try_later(self, arrival: Arrival, attempts: int, outcome: SlideOutcome) -> None:
        pause_s = RETRY_S * 2 ** (attempts - 1)
        due_s = self._around.clock.now_s() + pause_s
        self._ledger.note(arrival.job, Attempt(attempts, due_s, outcome.exit_code, outcome.message))
        self._around.tell("slide-retry", slide=self.label(arrival), attempt=attempts, in_s=pause_s)

    def _end(self, taken: _Taken, end: End, attempts: int, facts: dict[str, object]) -> None:
        label = self.label(taken.arrival)
        ended = in_utc(self._around.clock.now_s())
        record = {"slide": label, "ended": ended, "watcher": self._watchers.me, "attempts": attempts, **facts}
        self._ledger.end(taken.arrival.job, end, record)
        self.failures += end != "done"
        if end == "dead-letter":
            self._around.tell("slide-given-up", slide=label, exit_code=facts["exit_code"], attempts=attempts)

    def give_back(self) -> None:
        """Give back the slides that were not finished, as if they had not been begun.

        What cannot be written is left to the others, who find that this watcher has ended.
        """
        while self._taken:
            taken = self._taken.popleft()
            with suppress(OSError, OutputError):
                if self._leases.holds(taken.arrival.job):
                    self._ledger.note(taken.arrival.job, taken.before)
                self._release(taken)

    def _release(self, taken: _Taken) -> None:
        self._leases.release(taken.arrival.job)


def _is_unchanged(arrival: Arrival) -> bool:
    """Whether the slide is at this moment as it was seen."""
    try:
        return member_states(arrival.path) == arrival.members
    except OSError:
        return False


def _end_of(outcome: SlideOutcome) -> End:
    if not outcome.exit_code:
        return "done"
    return "dead-letter" if outcome.exit_code in RETRIED else "failed"


def _facts(outcome: SlideOutcome) -> dict[str, object]:
    return {
        "exit_code": outcome.exit_code,
        "stage": outcome.stage,
        "message": outcome.message,
        "folder": outcome.folder.name if outcome.folder else "",
        "digest": outcome.digest or "",
    }


def _killed(last: Attempt) -> dict[str, object]:
    """What is known of a slide whose last attempt did not end."""
    message = f"The watcher was killed {last.number} times during this slide. Score it alone: mminfer score SLIDE"
    return {
        "exit_code": last.exit_code or NativeCrashError.exit_code,
        "stage": "in the watcher",
        "message": last.message or message,
        "folder": "",
        "digest": "",
    }
