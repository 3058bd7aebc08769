"""A watcher: looks into a folder, has the slides scored that have arrived, and shows how it is.

Whatever happens to it, no slide is lost: a slide without a record is taken again, by this watcher or by another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from melanoma_infer.errors import OutputError, Stopped, UsageError
from melanoma_infer.pipeline.request import SlideRequest
from melanoma_infer.runtime.output_files import output_error
from melanoma_infer.runtime.privacy import safe_name, slide_name
from melanoma_infer.runtime.utc import in_utc
from melanoma_infer.slides.members import member_states
from melanoma_infer.slides.search import find_slides
from melanoma_infer.watching.arrivals import Arrival, Arrivals, Members
from melanoma_infer.watching.jobs import Jobs
from melanoma_infer.watching.leases import Leases
from melanoma_infer.watching.ledger import Ledger
from melanoma_infer.watching.status import write_status
from melanoma_infer.watching.surroundings import Place, Score, Surroundings, WatchSettings
from melanoma_infer.watching.watchers import Watchers

KEY_CHARS = 16
"""Of the hash in the name of a job: 64 bits, in which two of a million slides agree with a probability of 3e-8."""
LOOKS = 3
"""Looks in the time for which a slide must be unchanged."""
LOOK_MAX_S, LOOK_SHARE = 10.0, 0.2
"""The longest time between two looks; and the largest share of the time that looking may take, on a slow share."""


class Watcher:
    """Watches one folder. Several watchers may share the folder and the output folder.

    Args:
        place: what is watched, and where results go.
        watchers: all watchers of the output folder, and this one.
        work: what is done to each slide: the same text for the same model and settings.
        settings: when a slide has arrived, and how often it is tried.
        around: what it needs of the world.

    Raises:
        OutputError: the output folder cannot be written.
        UsageError: another watcher that is alive does other work for the same output folder.
    """

    def __init__(
        self, place: Place, watchers: Watchers, work: str, settings: WatchSettings, around: Surroundings
    ) -> None:
        self._place, self._watchers, self._settings, self._around = place, watchers, settings, around
        self._clock, self._work = around.clock, work
        self._ledger = Ledger(place.records)
        self._leases = Leases(place.records / "leases", watchers.me)
        self._arrivals = Arrivals(settings.stable_for_s, self._job_of)
        self._jobs = Jobs(self._ledger, self._leases, watchers, settings, around)
        self._ended: set[str] = set()
        self._unreadable = 0
        self._next_look_s = self._clock.passed_s()
        self._started = in_utc(self._clock.now_s())
        self._require_same_work()

    @property
    def failures(self) -> int:
        """Slides that failed or were given up."""
        return self._jobs.failures

    def _require_same_work(self) -> None:
        for name, facts in self._watchers.shown():
            if facts.get("work", self._work) != self._work and not self._watchers.is_dead(name, self._next_look_s):
                raise UsageError(
                    f"The watcher {name} uses another model or other settings for the same --out. Stop it first, or "
                    "choose another --out: each slide would be scored by one of the two."
                )

    def run(self, score: Score) -> None:
        """Score each slide that arrives; returns only with `once`, when every slide has its record.

        Raises:
            Stopped: the process was asked to stop.
            OutputError, GpuLostError: no slide can be scored any more.
        """
        try:
            while True:
                self.tick()
                if (first := next(self._requests(), None)) is not None:
                    for outcome in score(chain((first,), self._requests()), self.tick):
                        self._jobs.settle(outcome)
                    self._next_look_s = self._clock.passed_s()
                elif self._settings.once and not self._left():
                    return
                else:
                    self._clock.sleep(max(0.0, self._next_look_s - self._clock.passed_s()))
        except OSError as error:
            raise output_error(error) from error
        finally:
            self._jobs.give_back()
            with suppress(OSError, OutputError):
                self._watchers.remove(self._watchers.me)
                self._show()

    def tick(self) -> None:
        """Look into the folder if it is time to.

        Raises:
            Stopped: the process was asked to stop.
        """
        if number := self._around.stop_signal():
            raise Stopped(128 + number, "stopped: no slide is lost. The same command goes on with the others.")
        started_s = self._clock.passed_s()
        if started_s < self._next_look_s:
            return
        self._look(started_s)
        took_s = self._clock.passed_s() - started_s
        pause_s = min(self._settings.stable_for_s / LOOKS, LOOK_MAX_S)
        self._next_look_s = started_s + max(pause_s, took_s / LOOK_SHARE)

    def _look(self, now_s: float) -> None:
        found: dict[Path, Members] = {}
        unreadable = 0
        for path in find_slides([self._place.folder], may_be_empty=True).paths:
            if path == self._place.folder or path.is_dir():
                unreadable += 1
                continue
            with suppress(OSError):  # renamed or removed at this moment
                found[path] = member_states(path)
        self._arrivals.look(found, now_s)
        self._ended = self._ledger.ended()
        if unreadable > self._unreadable:
            self._around.tell("folders-unreadable", folders=unreadable)
        self._unreadable = unreadable
        self._watchers.beat(
            {
                "work": self._work,
                "started": self._started,
                "updated": in_utc(self._clock.now_s()),
                "scoring": [self._jobs.label(arrival) for arrival in self._jobs.held()],
            }
        )
        self._forget_the_dead(now_s)
        self._show()

    def _forget_the_dead(self, now_s: float) -> None:
        """Remove what is left of watchers that have ended and hold nothing any more."""
        holders = {holder for _, holder in self._leases.held()}
        dead = {name for name in {*holders, *dict(self._watchers.shown())} if self._watchers.is_dead(name, now_s)}
        for name in dead - holders:
            self._watchers.remove(name)
            self._leases.clean_up_after(name)

    def _show(self) -> None:
        left = self._left()
        counts = {
            "waiting": sum(not self._arrivals.is_stable(each) for each in left),
            "not_opening": sum(each.again_s > 0 for each in left),
            "unreadable_folders": self._unreadable,
        }
        write_status(self._place.records, self._ledger, self._watchers, in_utc(self._clock.now_s()), counts)

    def _left(self) -> list[Arrival]:
        """The slides in the folder that had no record at the last look and are not in this watcher's hands."""
        held = {arrival.job for arrival in self._jobs.held()}
        return [each for each in self._arrivals if each.job not in self._ended and each.job not in held]

    def _requests(self) -> Iterator[SlideRequest]:
        """The slides that have arrived, each taken at the moment it is asked for."""
        for arrival in self._arrivals.to_take():
            is_held = any(arrival.job == held.job for held in self._jobs.held())
            if arrival.job in self._ended or is_held:
                continue
            if (request := self._jobs.take(arrival, self._arrivals)) is not None:
                yield request

    def _job_of(self, path: Path, members: Members) -> str:
        """The name of a slide's records: a keyed hash of where it is and how its members are, after its id."""
        where = str(path.relative_to(self._place.folder))
        key = self._place.out.run_key({"slide": where, "members": members})[:KEY_CHARS]
        return key if self._settings.hide_names else f"{safe_name(slide_name(path))}-{key}"
