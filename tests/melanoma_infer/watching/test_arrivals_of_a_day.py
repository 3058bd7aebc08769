"""200 slides arrive as writers, operators and two watchers make it hard: none starts early, twice, or never."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from watching_for_tests import STABLE_S, Clock, Crew, World, outcome_of, records, watcher_in

from melanoma_infer.errors import MminferError, Stopped
from melanoma_infer.pipeline.request import SlideRequest
from melanoma_infer.result import SlideOutcome
from melanoma_infer.slides.companions import require_companions

SLIDES = 200
END = b"the end"
"""How a slide ends that opens."""
MIRAX_INDEX = "[HIERARCHICAL]\nINDEXFILE = Index.dat\n[DATAFILE]\nFILE_0 = Data0000.dat\n"


@dataclass
class Laboratory:
    """Scanners and people that write to a folder, and what is true of each slide."""

    folder: Path
    world: World
    chance: random.Random
    changing: set[str] = field(default_factory=set)
    """Slides that somebody will still write to."""
    expected: Counter[str] = field(default_factory=Counter)

    def write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(content)
        self.touch(path)

    def touch(self, path: Path) -> None:
        """The time of the last change is the world's."""
        os.utime(path, ns=(0, int(1.8e18 + self.world.s * 1e9)))

    def pause(self) -> float:
        """Less than the time for which a slide must be left alone."""
        return self.chance.uniform(1, STABLE_S - 1)

    def chunks(self, path: Path, start_s: float, *, long_pauses: bool = False) -> float:
        """A file in parts; returns when the last one is written."""
        second = start_s
        for _ in range(self.chance.randint(1, 4)):
            self.world.at(second, partial(self.write, path, b"part"))
            second += self.pause() * (4 if long_pauses else 1)
        self.world.at(second, partial(self.write, path, END))
        return second

    def whole(self, name: str, start_s: float, *, times: int = 1) -> None:
        """From start_s on a slide is as it will be."""
        self.changing.add(name)
        self.expected[name] += times
        self.world.at(start_s, partial(self.changing.discard, name))

    # What may happen to a slide.

    def slowly_written(self, name: str, start_s: float) -> None:
        self.whole(name, self.chunks(self.folder / f"{name}.svs", start_s))

    def stalled_for_longer_than_is_waited(self, name: str, start_s: float) -> None:
        self.whole(name, self.chunks(self.folder / f"{name}.svs", start_s, long_pauses=True))

    def written_under_another_name(self, name: str, start_s: float) -> None:
        part, path = self.folder / f"{name}.svs.part", self.folder / f"{name}.svs"
        end_s = self.chunks(part, start_s) + self.pause()
        self.world.at(end_s, partial(os.rename, part, path))
        self.whole(name, end_s)

    def renamed_before_it_was_stable(self, name: str, start_s: float) -> None:
        wrong, path = self.folder / f"wrong-{name}.svs", self.folder / "sub" / f"{name}.svs"
        end_s = self.chunks(wrong, start_s) + self.pause()
        self.world.at(end_s, lambda: (path.parent.mkdir(exist_ok=True), os.rename(wrong, path)))
        self.whole(name, end_s)

    def with_late_members(self, name: str, start_s: float) -> None:
        index, folder = self.folder / f"{name}.mrxs", self.folder / name
        self.world.at(start_s, partial(self.write, index, END))
        inside_s = start_s + self.chance.uniform(1, 3 * STABLE_S)
        self.world.at(inside_s, partial(self.write, folder / "Slidedat.ini", MIRAX_INDEX.encode()))
        index_s = inside_s + self.chance.uniform(1, 3 * STABLE_S)
        self.world.at(index_s, partial(self.write, folder / "Index.dat", END))
        end_s = self.chunks(folder / "Data0000.dat", index_s + self.pause())
        self.whole(name, end_s)

    def removed_before_it_was_whole(self, name: str, start_s: float) -> None:
        path = self.folder / f"{name}.svs"
        self.changing.add(name)
        self.world.at(self.chunks(path, start_s) + self.pause(), path.unlink)

    def removed_when_it_was_done(self, name: str, start_s: float) -> None:
        path = self.folder / f"{name}.svs"
        end_s = self.chunks(path, start_s)
        self.whole(name, end_s)
        self.world.at(end_s + 2000, path.unlink)

    def scanned_again(self, name: str, start_s: float) -> None:
        path = self.folder / f"{name}.svs"
        end_s = self.chunks(path, start_s)
        self.whole(name, end_s, times=2)
        again_s = end_s + 2000
        self.world.at(again_s, lambda: (self.changing.add(name), path.write_bytes(b"other"), self.touch(path)))
        end_s = self.chunks(path, again_s + self.pause())
        self.world.at(end_s, partial(self.changing.discard, name))

    def opens(self, path: Path) -> str | None:
        """Whether a slide is there with its members."""
        try:
            require_companions(path)
        except MminferError as error:
            return f"exit {error.exit_code}: {error}"
        return None if path.read_bytes().endswith(END) else "exit 10: it ends too early"


FATES = (
    Laboratory.slowly_written,
    Laboratory.stalled_for_longer_than_is_waited,
    Laboratory.written_under_another_name,
    Laboratory.renamed_before_it_was_stable,
    Laboratory.with_late_members,
    Laboratory.removed_before_it_was_whole,
    Laboratory.removed_when_it_was_done,
    Laboratory.scanned_again,
)


@dataclass
class Scorer:
    """Takes its time for each slide, and counts what it should not do."""

    laboratory: Laboratory
    clock: Clock
    begun: Callable[[str], None]
    scored: Counter[str]
    early: Counter[str]

    def __call__(self, requests: Iterable[SlideRequest], idle: Callable[[], None]) -> Iterator[SlideOutcome]:
        for request in requests:
            name = request.case.id
            self.early[name] += name in self.laboratory.changing
            self.begun(name)
            for _ in range(3):
                self.clock.sleep(2)
                idle()
            self.scored[name] += 1
            yield outcome_of(request)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_of_200_arrivals_none_starts_early_none_is_scored_twice_and_none_is_missed(tmp_path, seed):
    world, folder, out = World(), tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    laboratory = Laboratory(folder, world, random.Random(seed))
    for number in range(SLIDES):
        fate = FATES[number % len(FATES)]
        fate(laboratory, f"slide{number:03}-{fate.__name__}"[:40], laboratory.chance.uniform(0, 600))
    crew, scored, early = Crew(world), Counter[str](), Counter[str]()
    begun: dict[str, list[str]] = {"first": [], "second": []}

    def note(watcher: str, slide: str) -> None:
        begun[watcher].append(slide)
        if watcher == "first" and len(begun["first"]) == 30:
            crew.kill("first")  # in the middle of its thirtieth slide

    def asked_to_stop() -> int:
        return 15 if world.s > 3900 else 0

    def run(watcher: str, clock: Clock) -> None:
        def opens(path: Path) -> str | None:
            clock.sleep(1)  # in which the other watcher goes on
            return laboratory.opens(path)

        scorer = Scorer(laboratory, clock, partial(note, watcher), scored, early)
        watching = watcher_in(folder, out, clock, opens=opens, stop_signal=asked_to_stop)
        with pytest.raises(Stopped):
            watching.run(scorer)

    crew.start("first", partial(run, "first"))
    crew.start("second", partial(run, "second"), ahead_s=12345.6)
    crew.run()
    assert len(begun["first"]) == 30
    assert begun["first"][-1] in begun["second"], "the killed watcher's slide"
    assert +early == Counter(), "early starts"
    assert scored - laboratory.expected == Counter(), "doubles"
    assert laboratory.expected - scored == Counter(), "misses"
    assert sum(scored.values()) == sum(laboratory.expected.values()) >= 175
    assert records(out, "done") == sorted(laboratory.expected.elements())
    for of in ("failed", "dead-letter", "attempts"):
        assert records(out, of) == []
    assert list((out / "watch" / "leases").iterdir()) == []
