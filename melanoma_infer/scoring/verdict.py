"""What may be said about a slide, and why not more: score, threshold and circumstances → verdict with reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from melanoma_infer.card import AggregatorKind, ModelCard
from melanoma_infer.result import OutcomeState, Reason, Verdict
from melanoma_infer.tiles.tissue import LUMINANCE_P95_MIN

NOT_CONFIGURED = ("model-undocumented", "no-threshold", "aggregator-differs-from-card")
"""Reasons for `not-configured`: the model may be fine, but its card does not say enough for what was asked."""
TILES_MISSING = ("scan-incomplete", "hot-tiles-unreadable")
"""Reasons that do not prevent a suspicion which the other tiles support."""


@dataclass(frozen=True)
class Circumstances:
    """What the verdict depends on."""

    score: float | None
    engine_band: float
    """How far this engine's score may be from the reference's: twice the largest difference seen when it was sealed."""
    aggregator: AggregatorKind
    unreadable: int
    """Tiles that could not be read or computed."""
    not_evaluated: int
    """Tiles of a scan that are not complete, or not scored yet."""
    non_finite: int
    """Those of them for which the model gave a number that is not finite."""
    evaluable_fraction: float
    """Share of the tissue in tiles that were read and computed."""
    padded_fraction: float
    """Share of the evaluated area that was never scanned."""
    tissue_mm2: float
    is_brightfield: bool
    luminance_p95: float
    is_phantom: bool
    scale_source: Literal["slide", "override"]
    scale_contradiction: str | None
    """The scales that the slide states, if two of them cannot both be right."""
    geometry_matches: bool
    stain: str | None
    specimen: str | None


@dataclass(frozen=True)
class Judgement:
    """The verdict and its reasons."""

    verdict: Verdict
    reasons: list[Reason]


def judge(circumstances: Circumstances, card: ModelCard) -> Judgement:
    """The verdict that the circumstances allow. Any doubt makes it indeterminate, which is a good result.

    The reasons about the slide come first: those about the model hide them, and are the same in a whole run.
    """
    reasons = [
        *_about_slide(circumstances, card),
        *_about_tiles(circumstances, card),
        *_near_threshold(circumstances, card),
        *_about_model(circumstances, card),
    ]
    unset = list(_not_configured(circumstances, card))
    score, threshold = circumstances.score, card.threshold
    suspicious = not unset and threshold is not None and score is not None and score >= threshold.value
    # A missing tile might score higher, which cannot weaken a suspicion that needs no such tile.
    blocking = [reason for reason in reasons if not (suspicious and reason.code in TILES_MISSING)]
    if blocking:
        return Judgement("indeterminate", [*reasons, *unset])
    if unset:
        return Judgement("not-configured", [*reasons, *unset])
    return Judgement("suspected" if suspicious else "not-detected", reasons)


def outcome_state(verdict: Verdict, score: float | None, card: ModelCard) -> OutcomeState:
    """The outcome score against the card's two thresholds; assessed only if the finding is suspected."""
    thresholds = card.outcome_thresholds
    if verdict != "suspected" or score is None or thresholds is None:
        return "not-assessed"
    if score >= thresholds.high:
        return "above-threshold"
    return "below-threshold" if score < thresholds.low else "between-thresholds"


def slide_warnings(contradiction: str | None, doubts: Sequence[str] = ()) -> list[str]:
    """What a reader of the result must know about the slide: that it contradicts itself about its scale, and doubts
    about its files.
    """
    about_scale = [f"The slide contradicts itself about its scale ({contradiction})."] if contradiction else []
    return [*doubts, *about_scale]


def _about_model(circumstances: Circumstances, card: ModelCard) -> Iterator[Reason]:
    if not card.trained:
        yield Reason(code="model-untrained", text="The model is untrained: its numbers mean nothing.")
    if card.domain == "phantom" and not circumstances.is_phantom:
        yield Reason(
            code="model-knows-only-phantoms",
            text="The model has seen only drawn phantoms: its numbers mean nothing for this tissue.",
        )


def _about_slide(circumstances: Circumstances, card: ModelCard) -> Iterator[Reason]:
    if not circumstances.is_brightfield:
        yield Reason(
            code="stain-not-as-card",
            text="The slide is too dark for a brightfield scan; it may be fluorescence.",
            value=round(circumstances.luminance_p95, 1),
            limit=LUMINANCE_P95_MIN,
        )
    elif _differs(circumstances.stain, card.stain):
        yield Reason(
            code="stain-not-as-card",
            text="The slide's stain is not the one that the model was made for.",
            value=circumstances.stain,
            limit=card.stain,
        )
    if _differs(circumstances.specimen, card.specimen):
        yield Reason(
            code="specimen-not-as-card",
            text="The specimen is not of the kind that the model was made for.",
            value=circumstances.specimen,
            limit=card.specimen,
        )
    if circumstances.scale_source == "override" and not card.allow_scale_override:
        yield Reason(
            code="scale-overridden", text="The scale was entered by hand, which the model card does not allow."
        )
    if circumstances.scale_contradiction is not None:
        yield Reason(
            code="scale-contradicted",
            text=" ".join(
                [*slide_warnings(circumstances.scale_contradiction), "Find out which is right, and give it with --mpp."]
            ),
            value=circumstances.scale_contradiction,
        )
    if not circumstances.geometry_matches:
        yield Reason(
            code="geometry-differs-from-card",
            text="The tiles differ in size or spacing from those that the model was made for.",
        )


def _about_tiles(circumstances: Circumstances, card: ModelCard) -> Iterator[Reason]:
    if circumstances.is_brightfield and circumstances.tissue_mm2 == 0:
        yield Reason(code="no-tissue", text="No tissue was found.", value=0.0)
    # Without a score nothing was evaluated, however low the card's floor.
    too_little = circumstances.score is None or circumstances.evaluable_fraction < card.evaluable_floor
    if circumstances.tissue_mm2 > 0 and too_little:
        yield Reason(
            code="low-evaluable-tissue",
            text="Too little of the tissue could be evaluated.",
            value=round(circumstances.evaluable_fraction, 4),
            limit=card.evaluable_floor,
        )
    if circumstances.not_evaluated:
        yield Reason(
            code="scan-incomplete",
            text="Some tiles were not scanned as a whole or not scored in time, and one of them might have the highest "
            "score.",
            value=circumstances.not_evaluated,
            limit=0,
        )
    if circumstances.unreadable > circumstances.non_finite:
        yield Reason(
            code="hot-tiles-unreadable",
            text="Some tiles could not be read, and one of them might have the highest score.",
            value=circumstances.unreadable - circumstances.non_finite,
            limit=0,
        )
    if circumstances.non_finite:
        yield Reason(
            code="non-finite-output",
            text="For some tiles the model gave numbers that are not finite.",
            value=circumstances.non_finite,
            limit=0,
        )
    if circumstances.padded_fraction > card.padding_limit:
        yield Reason(
            code="mostly-padding",
            text="Most of the evaluated area was never scanned.",
            value=round(circumstances.padded_fraction, 4),
            limit=card.padding_limit,
        )


def _near_threshold(circumstances: Circumstances, card: ModelCard) -> Iterator[Reason]:
    threshold, score = card.threshold, circumstances.score
    # A meaningless score is near nothing, and a reason must not tell its value.
    meaningless = any(_about_model(circumstances, card))
    if threshold is None or score is None or any(_not_configured(circumstances, card)) or meaningless:
        return
    if threshold.low <= score < threshold.high:
        yield Reason(
            code="near-threshold",
            text=f"The score is in the threshold's interval, {threshold.low:.2f}–{threshold.high:.2f}.",
            value=round(score, 4),
            limit=threshold.value,
        )
    if circumstances.engine_band and abs(score - threshold.value) <= circumstances.engine_band:
        yield Reason(
            code="engine-band",
            text="The score is closer to the threshold than this engine's numbers are to the reference's.",
            value=round(abs(score - threshold.value), 6),
            limit=circumstances.engine_band,
        )


def _not_configured(circumstances: Circumstances, card: ModelCard) -> Iterator[Reason]:
    if card.undocumented is not None:
        yield Reason(code="model-undocumented", text=card.undocumented)
    if card.threshold is None:
        yield Reason(code="no-threshold", text="The model card sets no threshold.")
    elif circumstances.aggregator != card.aggregator.kind:
        yield Reason(
            code="aggregator-differs-from-card",
            text="The threshold was set for another way of aggregating the tiles' scores.",
            value=circumstances.aggregator,
            limit=card.aggregator.kind,
        )


def _differs(stated: str | None, expected: str | None) -> bool:
    return stated is not None and expected is not None and stated.casefold() != expected.casefold()
