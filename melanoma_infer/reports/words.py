"""The words in which a result is told to a person.

| what | how |
|---|---|
| scores | two decimals |
| mm and mm² | two decimals, halves up, through Decimal |
| shares | whole per cent, rounded down |
| the finding | a sentence, or the reasons in its place |
| numbers that mean nothing for a tissue | said so wherever they stand, and never in the headline |
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from melanoma_infer.phantom.mark import CAUTION
from melanoma_infer.result import SlideResult

PHANTOM = CAUTION
HUNDREDTH = Decimal("0.01")
RESEARCH_USE = "Research use only. Not a medical device: no decision about a patient may rest on it."


def finding(result: SlideResult) -> str:
    """The result in a sentence; the reasons in its place where nothing may be claimed."""
    if result.verdict == "suspected":
        scores = f"score {score(result.malignant_score)}, threshold {score(result.bundle.threshold)}"
        return f"Suspected melanoma in evaluable tissue ({scores})"
    if result.verdict == "not-detected":
        evaluated = share(result.evaluable_fraction)
        return f"No suspected region in {evaluated} evaluable tissue. This does not exclude melanoma."
    return f"{opening(result)} {' '.join(reason.text for reason in result.reasons)}"


def tiles_line(result: SlideResult) -> str:
    """What was evaluated, in one line."""
    counted = result.tiles_counted
    parts = [f"{counted.ok} ok"]
    parts += [f"{counted.padded} of them padded"] if counted.padded else []
    parts += [f"{counted.unreadable} unreadable"] if counted.unreadable else []
    parts += [f"{counted.not_evaluated} not evaluated"] if counted.not_evaluated else []
    return (
        f"tiles: {', '.join(parts)}; tissue {mm(result.tissue_mm2)} mm², {share(result.evaluable_fraction)} evaluable"
    )


def means_nothing(result: SlideResult) -> str | None:
    """Why the model's numbers mean nothing for this slide; None where they mean something."""
    codes = {reason.code for reason in result.reasons}
    if "model-untrained" in codes:
        why = "The model is untrained"
    elif "model-knows-only-phantoms" in codes:
        why = "The model has seen only drawn phantoms"
    else:
        return None
    return f"{why}: its numbers and its heat mean nothing for this {subject(result)}."


def subject(result: SlideResult) -> str:
    """What the slide holds: tissue, or a drawing."""
    return "phantom" if result.slide.is_phantom else "tissue"


def opening(result: SlideResult) -> str:
    """What the finding begins with where reasons stand in its place; nothing where it is a sentence."""
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
    """Where the outcome's score lies; nothing where the model knows none."""
    if result.outcome_name is None:
        return ""
    said = {
        "above-threshold": "Above the upper threshold",
        "between-thresholds": "Between the thresholds: nothing is claimed",
        "below-threshold": "Below the lower threshold",
        "not-assessed": "Not assessed",
    }[result.outcome]
    number = "" if result.outcome == "not-assessed" else f" (score {score(result.outcome_score)})"
    return f"{said}{number}."


def region_counts(result: SlideResult) -> str:
    """How many regions of each kind lie on each tissue section; nothing where there is none."""
    lines = []
    for section in sorted({region.tissue_section for region in result.regions}):
        kinds = [region.class_ for region in result.regions if region.tissue_section == section]
        counts = [f"{kinds.count(kind)} {kind}" for kind in ("malignant", "benign") if kind in kinds]
        lines.append(f"{f'Tissue section {section}' if section else 'On no tissue section'}: {', '.join(counts)}.")
    return " ".join(lines)


def evaluable(result: SlideResult) -> str:
    """How much of the tissue the result rests on."""
    return f"{mm(result.tissue_mm2)} mm² of tissue, {share(result.evaluable_fraction)} evaluable"


def mm(value: float) -> str:
    """Millimetres (or mm²) to 0.01, halves up, through the decimal number that is printed elsewhere."""
    return str(Decimal(repr(float(value))).quantize(HUNDREDTH, ROUND_HALF_UP))


def area(mm2: float) -> str:
    """An area in mm² like `mm`; what is there, but rounds to nothing, is said to be less than 0.01."""
    said = mm(mm2)
    return f"< {HUNDREDTH}" if mm2 > 0 and said == "0.00" else said


def score(value: float | None) -> str:
    """A score with two decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"


def share(value: float) -> str:
    """A share in whole per cent, rounded down: nothing is rounded up to all of it."""
    return f"{int(value * 100)} %"
