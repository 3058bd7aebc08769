"""The words in which a result is told to a person. Scores have two decimals, shares none."""

from __future__ import annotations

from melanoma_infer.result import SlideResult


def finding(result: SlideResult) -> str:
    """The result in a sentence; the reasons in its place where nothing may be claimed."""
    if result.verdict == "suspected":
        return (
            f"Suspected melanoma in evaluable tissue (score {result.malignant_score:.2f}, cut {result.bundle.cut:.2f})"
        )
    if result.verdict == "not-detected":
        share = int(result.evaluable_fraction * 100)
        return f"No suspected region in {share} % evaluable tissue. This does not exclude melanoma."
    opening = "Indeterminate" if result.verdict == "indeterminate" else "No verdict"
    return f"{opening}: {' '.join(reason.text for reason in result.reasons)}"


def tiles_line(result: SlideResult) -> str:
    """What was evaluated, in one line."""
    counted = result.tiles_counted
    parts = [f"{counted.ok} ok"]
    parts += [f"{counted.padded} of them padded"] if counted.padded else []
    parts += [f"{counted.unreadable} unreadable"] if counted.unreadable else []
    parts += [f"{counted.not_evaluated} not evaluated"] if counted.not_evaluated else []
    share = int(result.evaluable_fraction * 100)
    return f"tiles: {', '.join(parts)}; tissue {result.tissue_mm2:.2f} mm², {share} % evaluable"
