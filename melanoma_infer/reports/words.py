"""A result in words, for people.

| what | how |
|---|---|
| scores | two decimals |
| mm and mm² | two decimals, halves rounded up, through Decimal |
| shares | whole per cent, rounded down |
| the finding | a sentence with the card's noun, or the reasons why there is none |
| a count with its noun | `plural` |
| numbers that mean nothing for this tissue | marked as such wherever they are shown, never in the headline |
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from melanoma_infer.phantom.mark import CAUTION
from melanoma_infer.result import Region, SlideResult
from melanoma_infer.runtime.plural import plural as plural

PHANTOM = CAUTION
HUNDREDTH = Decimal("0.01")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
SECTIONS_MAX = 6
"""Tissue sections that are counted one by one."""
RESEARCH_USE = "Research use only. Not a medical device: no decision about a patient may rest on it."


def finding(result: SlideResult) -> str:
    """The result in one sentence, or the reasons why nothing may be claimed."""
    if result.verdict == "suspected":
        scores = f"score {score(result.malignant_score)}, threshold {score(result.bundle.threshold)}"
        return f"Suspected {result.bundle.finding} in evaluable tissue ({scores})"
    if result.verdict == "not-detected":
        evaluated = share(result.evaluable_fraction)
        caution = f"This does not exclude {result.bundle.finding}."
        return f"No suspected region in {evaluated} evaluable tissue. {caution}"
    return f"{opening(result)} {' '.join(reason.text for reason in result.reasons)}"


def tiles_line(result: SlideResult) -> str:
    """How many tiles and how much tissue were evaluated, in one line."""
    counted = result.tiles_counted
    parts = [f"{counted.ok} ok"]
    parts += [f"{counted.padded} of them padded"] if counted.padded else []
    parts += [f"{counted.unreadable} unreadable"] if counted.unreadable else []
    parts += [f"{counted.not_evaluated} not evaluated"] if counted.not_evaluated else []
    return (
        f"tiles: {', '.join(parts)}; tissue {mm(result.tissue_mm2)} mm², {share(result.evaluable_fraction)} evaluable"
    )


def means_nothing(result: SlideResult) -> str | None:
    """Why the model's numbers mean nothing for this slide; None if they mean something."""
    codes = {reason.code for reason in result.reasons}
    if "model-untrained" in codes:
        why = "The model is untrained"
    elif "model-knows-only-phantoms" in codes:
        why = "The model has seen only drawn phantoms"
    else:
        return None
    return f"{why}: its numbers and its heat mean nothing for this {subject(result)}."


def subject(result: SlideResult) -> str:
    """What the slide shows: tissue, or a drawn phantom."""
    return "phantom" if result.slide.is_phantom else "tissue"


def opening(result: SlideResult) -> str:
    """The word before the reasons if they replace the finding; empty if the finding is a sentence."""
    return {"indeterminate": "Indeterminate:", "not-configured": "No verdict:"}.get(result.verdict, "")


def thickness(result: SlideResult) -> str:
    """The Breslow thickness, or why there is none."""
    measured = result.thickness
    if measured.state == "not-assessable" or measured.mm is None:
        return f"Not assessable. {measured.reason}".rstrip()
    if measured.state == "more-than":
        return f"More than {mm(measured.mm)} mm. {measured.reason}".rstrip()
    interval = ""
    if measured.low_mm is not None and measured.high_mm is not None:
        interval = f" ({mm(measured.low_mm)} to {mm(measured.high_mm)} mm)"
    return f"{mm(measured.mm)} mm{interval}, estimated. {measured.reason}".rstrip()


def outcome(result: SlideResult) -> str:
    """The outcome's score against its two thresholds; empty if the model has no outcome.

    Its name comes last: whoever reads "metastasis recorded" first takes it for a finding.
    """
    name, number = result.outcome_name, f"(score {score(result.outcome_score)})"
    if name is None:
        return ""
    return {
        "above-threshold": f"Above the upper threshold for {name} {number}.",
        "between-thresholds": f"Nothing is claimed: between the thresholds for {name} {number}.",
        "below-threshold": f"Below the lower threshold for {name} {number}.",
        "not-assessed": f"Not assessed: {name}.",
    }[result.outcome]


def region_counts(result: SlideResult) -> str:
    """How many regions of each kind each tissue section has, or all of many sections; empty without regions."""
    sections = sorted({region.tissue_section for region in result.regions})
    if len(sections) > SECTIONS_MAX:
        return f"{_counts(result.regions)} on {len(sections)} tissue sections."
    on = {section: [each for each in result.regions if each.tissue_section == section] for section in sections}
    return " ".join(f"Tissue section {section}: {_counts(regions)}." for section, regions in on.items())


def _counts(regions: Sequence[Region]) -> str:
    """Such as "3 malignant, 1 benign"."""
    kinds = [region.class_ for region in regions]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("malignant", "benign") if kind in kinds)


def evaluable(result: SlideResult) -> str:
    """How much tissue there is, and how much of it could be evaluated."""
    return f"{mm(result.tissue_mm2)} mm² of tissue, {share(result.evaluable_fraction)} evaluable"


def when(started: str, finished: str) -> str:
    """From when to when, in UTC: the date once if it is the same.

    Args:
        started: ISO 8601 in UTC, such as 2026-11-29T06:23:11Z.
        finished: the same.
    """
    begin, end = (datetime.fromisoformat(moment) for moment in (started, finished))
    same_day = begin.date() == end.date()
    return f"{_date(begin)}, {begin:%H:%M:%S}–{'' if same_day else f'{_date(end)}, '}{end:%H:%M:%S} UTC"


def _date(moment: datetime) -> str:
    """Such as 29 November 2026, whatever the computer's language is."""
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}"


def mm(value: float) -> str:
    """Millimetres (or mm²) to 0.01, halves rounded up, from the decimal number that the other files print."""
    return str(Decimal(repr(float(value))).quantize(HUNDREDTH, ROUND_HALF_UP))


def width(value: float) -> str:
    """The width of a cell or a tile with its unit: in mm, or in whole µm where mm would round most of it away."""
    return f"{mm(value)} mm" if value >= 0.1 else f"{max(1, round(1000 * value))} µm"


def area(mm2: float) -> str:
    """An area in mm² like `mm`; a positive area that rounds to zero is "< 0.01"."""
    rounded = mm(mm2)
    return f"< {HUNDREDTH}" if mm2 > 0 and rounded == "0.00" else rounded


def score(value: float | None) -> str:
    """A score with two decimals; a dash for None."""
    return "–" if value is None else f"{value:.2f}"


def share(value: float) -> str:
    """A share in whole per cent, rounded down, so that only all of it is 100 %."""
    return f"{int(value * 100)} %"
