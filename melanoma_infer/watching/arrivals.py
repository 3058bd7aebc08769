"""Which slides of a watched folder have arrived: nobody has written to any of their members for long enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from melanoma_infer.slides.members import MemberState

LOOKS_MIN = 3
"""A slide has been seen unchanged at least so often, also where looks are far apart."""

Members = Sequence[MemberState]


@dataclass(frozen=True)
class Arrival:
    """A slide as it was seen, and since when it has been so."""

    path: Path
    members: Members
    job: str
    """The name of its records: another one if any member changes."""
    since_s: float
    looks: int = 1
    again_s: float = 0.0
    """When to try again to open it; before this, it is not asked for."""

    @property
    def size_bytes(self) -> int:
        """Of all members."""
        return sum(member.size_bytes for member in self.members)


class Arrivals:
    """The slides that are in the folder.

    Args:
        stable_for_s: seconds for which size and time of each member must not change, and no member be added.
        job_of: the name of a slide's records.
    """

    def __init__(self, stable_for_s: float, job_of: Callable[[Path, Members], str]) -> None:
        self._stable_for_s, self._job_of = stable_for_s, job_of
        self._seen: dict[Path, Arrival] = {}
        self._looked_s = 0.0

    def look(self, found: Mapping[Path, Members], now_s: float) -> None:
        """Compare what is in the folder now with what was; what is not there any more is forgotten."""
        self._looked_s = now_s
        self._seen = {path: self._seen_again(path, members, now_s) for path, members in found.items()}

    def _seen_again(self, path: Path, members: Members, now_s: float) -> Arrival:
        old = self._seen.get(path)
        if old is not None and old.members == members:
            return replace(old, looks=old.looks + 1)
        return Arrival(path, members, self._job_of(path, members), now_s)

    def __iter__(self) -> Iterator[Arrival]:
        """All slides, the one that has been unchanged for longest first."""
        return iter(sorted(self._seen.values(), key=lambda each: (each.since_s, each.path)))

    def is_stable(self, arrival: Arrival) -> bool:
        """Whether nobody writes to it any more."""
        return arrival.looks >= LOOKS_MIN and self.unchanged_s(arrival) >= self._stable_for_s

    def unchanged_s(self, arrival: Arrival) -> float:
        """Seconds for which it had not changed at the last look."""
        return self._looked_s - arrival.since_s

    def to_take(self) -> list[Arrival]:
        """Those that are stable, and are not to be tried again later."""
        return [each for each in self if self.is_stable(each) and each.again_s <= self._looked_s]

    def try_again(self, arrival: Arrival) -> None:
        """Ask for it again only after the time for which a slide must be unchanged."""
        seen = self._seen.get(arrival.path)
        if seen is not None and seen.job == arrival.job:
            self._seen[arrival.path] = replace(seen, again_s=self._looked_s + self._stable_for_s)
