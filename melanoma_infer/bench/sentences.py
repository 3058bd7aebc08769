"""What a slide's timing means, in words made from its figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from melanoma_infer.bench.slide import BESIDE, SlideTiming
from melanoma_infer.errors import UsageError

HOURS = {"hour": 1, "day": 24}


def bound_sentence(timing: SlideTiming) -> str:
    """What holds the slide back, and what reading could deliver beside it."""
    share = timing.stages[timing.bound] / timing.seconds
    feed = (
        f"{timing.threads} threads of {timing.reader} could feed {timing.reading_tiles_per_s:.0f} tiles/s, "
        f"{_reading_ms(timing):.1f} ms a tile"
    )
    return f"{_BOUND[timing.bound](timing)}: {share:.0%} of the time; {feed}."


@dataclass(frozen=True)
class Target:
    """How many slides are to be scored an hour or a day, around the clock."""

    slides: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """From "4000/day" or "150/hour".

        Raises:
            UsageError: it is not written like that.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)/(day|hour)", text)
        if not found or float(found[1]) <= 0:
            raise UsageError("--target takes a number of slides, as 4000/day or 150/hour.")
        return cls(float(found[1]), found[2])

    def sentence(self, timing: SlideTiming) -> str:
        """Whether that many slides like this one can be scored."""
        had = timing.slides_per_h * HOURS[self.unit]
        reach = "within reach" if had >= self.slides else "NOT within reach"
        return f"{self.slides:g} slides like this one a {self.unit} are {reach}: {had:.0f} are possible."


def _reading_ms(timing: SlideTiming) -> float:
    return 1000 * sum(timing.stages[stage] for stage in BESIDE) / timing.tiles


def _engine(timing: SlideTiming) -> str:
    return f"The engine is the limit ({timing.engine} {timing.precision} computes)"


def _reading(timing: SlideTiming) -> str:
    most = max(BESIDE, key=lambda stage: timing.stages[stage])
    return f"Reading is the limit (the engine waits for pixels; most of a tile's time is {most})"


_BOUND: dict[str, Callable[[SlideTiming], str]] = {
    "infer": _engine,
    "wait": _reading,
    "open": lambda _timing: "Opening the slide is the limit (the storage answers slowly, or the slide is tiny)",
    "tissue": lambda _timing: "Finding the tissue is the limit (the slide has few tiles, or no low pyramid level)",
    "score": lambda _timing: "Joining the tiles is the limit",
    "gallery": lambda _timing: "Reading the gallery's tiles again is the limit",
    "write": lambda _timing: "Writing the reports is the limit (pictures of the slide are drawn)",
}
