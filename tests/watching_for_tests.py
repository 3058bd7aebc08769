"""A watched folder in which time passes only when a test says so, and scoring costs time but computes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any

from melanoma_infer.patients.case import SlideCase
from melanoma_infer.pipeline.request import SlideRequest
from melanoma_infer.result import SlideOutcome
from melanoma_infer.settings import Settings
from melanoma_infer.store.output import OutputFolder
from melanoma_infer.watching.surroundings import Place, Surroundings, WatchSettings
from melanoma_infer.watching.watcher import Watcher
from melanoma_infer.watching.watchers import Watchers

STABLE_S = 30.0
SETTINGS = WatchSettings(stable_for_s=STABLE_S, open_within_s=600.0)


class World:
    """Time, and what happens in the folder at which time."""

    def __init__(self) -> None:
        self.s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, second: float, happens: Callable[[], None]) -> None:
        """Something happens at that second."""
        self._events.append((second, len(self._events), happens))
        self._events.sort(key=lambda event: event[:2])

    def pass_to(self, second: float) -> None:
        """Let time pass; what happens until then happens, each at its own second."""
        while self._events and self._events[0][0] <= second:
            due, _, happens = self._events.pop(0)
            self.s = max(self.s, due)
            happens()
        self.s = max(self.s, second)


class Clock:
    """The world's time as one watcher sees it: another zero, and another time of day."""

    def __init__(self, world: World, *, ahead_s: float = 0.0) -> None:
        self._world, self._ahead_s = world, ahead_s

    def passed_s(self) -> float:
        return self._world.s + self._ahead_s

    def now_s(self) -> float:
        return 1.8e9 + self._world.s + self._ahead_s

    def sleep(self, seconds: float) -> None:
        self._world.pass_to(self._world.s + max(seconds, 0.5))


def outcome_of(request: SlideRequest, exit_code: int = 0, message: str = "") -> SlideOutcome:
    """How a slide ended."""
    return SlideOutcome(
        request.case.id, None, exit_code, message, "tiles" if exit_code else "", 1.0, "2026", "2026", digest="d" * 64
    )


def watcher_in(
    folder: Path,
    out: Path,
    clock: Clock,
    *,
    settings: WatchSettings = SETTINGS,
    opens: Callable[[Path], str | None] = lambda path: None,
    stop_signal: Callable[[], int] = lambda: 0,
    work: str = "same",
    told: list[tuple[str, dict[str, Any]]] | None = None,
) -> Watcher:
    """A watcher whose processes nobody knows to be dead: only its silence tells."""

    def tell(event: str, *, slide: str = "", **facts: object) -> None:
        if told is not None:
            told.append((event, {"slide": slide, **facts}))

    around = Surroundings(
        clock=clock,
        stop_signal=stop_signal,
        request_of=lambda path, _present: SlideRequest(path, SlideCase(path.stem), Settings()),
        why_not_open=lambda request: opens(request.path),
        tell=tell,
    )
    place = Place(folder, OutputFolder(out))
    return Watcher(place, Watchers(place.records / "watchers", lambda _process: False), work, settings, around)


def scoring(
    scored: Counter[str], *, codes: Callable[[SlideRequest], int] = lambda request: 0
) -> Callable[[Iterable[SlideRequest], Callable[[], None]], Iterator[SlideOutcome]]:
    """A scorer that counts what it scores."""

    def score(requests: Iterable[SlideRequest], idle: Callable[[], None]) -> Iterator[SlideOutcome]:
        for request in requests:
            idle()
            scored[request.case.id] += 1
            code = codes(request)
            yield outcome_of(request, code, "why" if code else "")

    return score


def records(out: Path, of: str) -> list[str]:
    """The slides with such a record, sorted."""
    return sorted(path.stem.rpartition("-")[0] for path in (out / "watch" / of).glob("*.json"))


class Crew:
    """Several programs in one world, each in a thread, of which only one runs at any time: until it sleeps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._members: dict[str, _Member] = {}

    def start(self, name: str, run: Callable[[Clock], object], *, ahead_s: float = 0.0) -> None:
        """Start a program, which is given its clock."""
        self._members[name] = _Member(self.world, run, ahead_s)

    def kill(self, name: str) -> None:
        """Let a program never wake again."""
        self._members[name].is_killed = True

    def run(self) -> None:
        """Let all programs run until each has ended or was killed; the first that wakes up runs first."""
        while awake := [member for member in self._members.values() if not (member.is_killed or member.has_ended)]:
            member = min(awake, key=lambda each: each.wakes_s)
            self.world.pass_to(member.wakes_s)
            if not member.is_killed:  # by what has just happened
                member.go_on()
        for member in self._members.values():
            if member.error is not None:
                raise member.error


class _Member(Clock):
    def __init__(self, world: World, run: Callable[[Clock], object], ahead_s: float) -> None:
        super().__init__(world, ahead_s=ahead_s)
        self.wakes_s, self.is_killed, self.has_ended = world.s, False, False
        self.error: BaseException | None = None
        self._mine, self._others, self._run = Semaphore(0), Semaphore(0), run
        Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        self._mine.acquire()
        try:
            self._run(self)
        except BaseException as error:  # noqa: BLE001 - it is raised again by `run`
            self.error = error
        self.has_ended = True
        self._others.release()

    def go_on(self) -> None:
        self._mine.release()
        self._others.acquire()

    def sleep(self, seconds: float) -> None:
        self.wakes_s = self._world.s + max(seconds, 0.5)
        self._others.release()
        self._mine.acquire()
