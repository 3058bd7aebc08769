"""Sentences that interpret a slide's timing: the bottleneck, and whether a target is within reach."""

from __future__ import annotations

import re
from dataclasses import dataclass

from melanoma_infer.bench.slide import BESIDE, TILES_MIN, SlideTiming
from melanoma_infer.errors import UsageError
from melanoma_infer.runtime.plural import plural

HOURS = {"hour": 1, "day": 24}


def figures(timing: SlideTiming) -> str:
    """The throughput with the slide, with the engine alone and per hour, and the peak memory."""
    memory = "" if timing.peak_rss_bytes is None else f", peak memory {timing.peak_rss_bytes / 1e9:.2f} GB"
    hourly = "" if timing.slides_per_h is None else f"{timing.slides_per_h:.0f} slides/h, "
    return (
        f"{plural(timing.tiles, 'tile')} in {timing.seconds:.2f} s: {timing.tiles_per_s:.1f} tiles/s "
        f"({timing.p20:.1f}-{timing.p80:.1f}), {timing.share_of_engine:.0%} of the bare engine's "
        f"{timing.engine_only_tiles_per_s:.1f}; {hourly}{timing.overhead_s:.2f} s per slide outside its tiles{memory}."
    )


def bound_sentence(timing: SlideTiming) -> str:
    """The bottleneck of the slide, and the throughput that reading alone could reach."""
    slowest = max(BESIDE, key=lambda stage: timing.stages[stage])
    bottleneck = {
        "infer": f"The engine ({timing.engine} {timing.precision})",
        "wait": f"Reading (the engine waits for pixels; most of a tile's time is {slowest})",
        "open": "Opening the slide (the storage responds slowly, or the slide is tiny)",
        "tissue": "Finding the tissue (the slide has few tiles, or no low-resolution level)",
        "score": "Aggregating the tiles",
        "gallery": "Reading the gallery's tiles again",
        "write": "Writing the reports (pictures of the slide are drawn)",
    }[timing.bound]
    share = timing.stages[timing.bound] / timing.seconds
    reading_ms = 1000 * sum(timing.stages[stage] for stage in BESIDE) / timing.tiles
    return (
        f"{bottleneck} is the bottleneck with {share:.0%} of the time; {plural(timing.threads, 'thread')} of "
        f"{timing.reader} could read {timing.reading_tiles_per_s:.0f} tiles/s, {reading_ms:.1f} ms per tile."
    )


@dataclass(frozen=True)
class Target:
    """A number of slides to score per hour or per day, around the clock."""

    slides: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that is written as "4000/day" or "150/hour".

        Raises:
            UsageError: the text has another form, or the number is 0.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)/(day|hour)", text)
        if not found or float(found[1]) <= 0:
            raise UsageError(f"--target {text!r} is not a number of slides. Write it as 4000/day or 150/hour.")
        return cls(float(found[1]), found[2])

    def sentence(self, timing: SlideTiming) -> str:
        """Whether that many slides like this one can be scored in this time, if the slide is large enough to say so."""
        slides = plural(f"{self.slides:g}", "slide")
        if timing.slides_per_h is None:
            return (
                f"Whether {slides} per {self.unit} can be scored is not known: this slide has "
                f"{plural(timing.tiles, 'tile')}, and one with fewer than {TILES_MIN} says nothing about others. "
                "Choose a slide that is typical of yours."
            )
        possible = timing.slides_per_h * HOURS[self.unit]
        reach = "within reach" if possible >= self.slides else "NOT within reach"
        are = "is" if self.slides == 1 else "are"
        return f"{slides} like this one per {self.unit} {are} {reach}: {possible:.0f} are possible."
