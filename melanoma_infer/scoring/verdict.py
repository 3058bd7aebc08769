"""What may be said of a slide, and why not more: scores, thresholds and circumstances → verdict with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from melanoma_infer.card import AggregatorKind, ModelCard
from melanoma_infer.result import OutcomeState, Reason, Verdict
from melanoma_infer.tiles.tissue import LUMINANCE_P95_MIN

WITHOUT_THRESHOLD = ("no-threshold", "aggregator-differs-from-card")
"""These make the verdict `not-configured`: the model may be fine, but nobody set a threshold for what was asked."""


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on."""

    score: float | None
    engine_band: float
    """How far this engine's score may be from the reference's: twice the largest difference seen when it was sealed."""
    aggregator: AggregatorKind
    unreadable: int
    non_finite: int
    evaluable_fraction: float
    padded_fraction: float
    """Share of the evaluated area that was never scanned."""
    tissue_mm2: float
    is_brightfield: bool
    luminance_p95: float
    is_phantom: bool
    scale_source: Literal["slide", "override"]
    geometry_matches: bool
    stain: str | None
    specimen: str | None


@dataclass(frozen=True)
class Judgement:
    """The verdict and its reasons."""

    verdict: Verdict
    reasons: list[Reason]


def judge(evidence: Evidence, card: ModelCard) -> Judgement:
    """The verdict that the evidence allows. Any doubt makes it indeterminate, which is a good result."""
    reasons = [*_model(evidence, card), *_slide(evidence, card), *_tiles(evidence, card), *_near(evidence, card)]
    unset = _unset(evidence, card)
    hot = (
        card.threshold is not None
        and not unset
        and evidence.score is not None
        and evidence.score >= card.threshold.value
    )
    # What could not be read might be hot, which takes nothing from a suspicion that stands without it.
    blocking = [reason for reason in reasons if not (hot and reason.code == "hot-tiles-unreadable")]
    if blocking:
        return Judgement("indeterminate", [*reasons, *unset])
    if unset:
        return Judgement("not-configured", [*reasons, *unset])
    return Judgement("suspected" if hot else "not-detected", reasons)


def outcome_state(verdict: Verdict, score: float | None, card: ModelCard) -> OutcomeState:
    """Where the outcome score lies between the card's thresholds; assessed only where melanoma is suspected."""
    thresholds = card.outcome_thresholds
    if verdict != "suspected" or score is None or thresholds is None:
        return "not-assessed"
    if score >= thresholds.high:
        return "above-threshold"
    return "below-threshold" if score < thresholds.low else "between-thresholds"


def _model(evidence: Evidence, card: ModelCard) -> Iterator[Reason]:
    if not card.trained:
        yield Reason(code="model-untrained", text="The model is untrained: its numbers mean nothing.")
    if card.domain == "phantom" and not evidence.is_phantom:
        yield Reason(
            code="model-knows-only-phantoms",
            text="The model has seen only drawn phantoms: its numbers mean nothing for this tissue.",
        )


def _slide(evidence: Evidence, card: ModelCard) -> Iterator[Reason]:
    if not evidence.is_brightfield:
        yield Reason(
            code="stain-not-as-card",
            text="The slide is too dark for a brightfield scan; it may be fluorescence.",
            value=round(evidence.luminance_p95, 1),
            limit=LUMINANCE_P95_MIN,
        )
    elif _differs(evidence.stain, card.stain):
        yield Reason(
            code="stain-not-as-card",
            text="The stain is not the one that the model was made for.",
            value=evidence.stain,
            limit=card.stain,
        )
    if _differs(evidence.specimen, card.specimen):
        yield Reason(
            code="specimen-not-as-card",
            text="The specimen is not of the kind that the model was made for.",
            value=evidence.specimen,
            limit=card.specimen,
        )
    if evidence.scale_source == "override" and not card.allow_scale_override:
        yield Reason(code="scale-overridden", text="The scale was given by hand, which the model card does not allow.")
    if not evidence.geometry_matches:
        yield Reason(
            code="geometry-differs-from-card",
            text="The tiles have another size or distance than the model was made for.",
        )


def _tiles(evidence: Evidence, card: ModelCard) -> Iterator[Reason]:
    if evidence.is_brightfield and evidence.tissue_mm2 == 0:
        yield Reason(code="no-tissue", text="No tissue was found.", value=0.0)
    # Without a score nothing was evaluated, whatever floor the card sets.
    too_little = evidence.score is None or evidence.evaluable_fraction < card.evaluable_floor
    if evidence.tissue_mm2 > 0 and too_little:
        yield Reason(
            code="low-evaluable-tissue",
            text="Too little of the tissue could be evaluated.",
            value=round(evidence.evaluable_fraction, 4),
            limit=card.evaluable_floor,
        )
    if evidence.unreadable > evidence.non_finite:
        yield Reason(
            code="hot-tiles-unreadable",
            text="Some tiles could not be read, and one of them may be the hottest.",
            value=evidence.unreadable - evidence.non_finite,
            limit=0,
        )
    if evidence.non_finite:
        yield Reason(
            code="non-finite-output",
            text="The model gave numbers that are not finite for some tiles.",
            value=evidence.non_finite,
            limit=0,
        )
    if evidence.padded_fraction > card.padding_limit:
        yield Reason(
            code="mostly-padding",
            text="Most of the evaluated area lies outside what was scanned.",
            value=round(evidence.padded_fraction, 4),
            limit=card.padding_limit,
        )


def _near(evidence: Evidence, card: ModelCard) -> Iterator[Reason]:
    threshold, score = card.threshold, evidence.score
    # A score that means nothing is near to nothing, and its place must not stand among the reasons.
    if threshold is None or score is None or _unset(evidence, card) or any(_model(evidence, card)):
        return
    if threshold.low <= score < threshold.high:
        yield Reason(
            code="near-threshold",
            text=f"The score lies in the interval of the threshold, {threshold.low:.2f}–{threshold.high:.2f}.",
            value=round(score, 4),
            limit=threshold.value,
        )
    if evidence.engine_band and abs(score - threshold.value) <= evidence.engine_band:
        yield Reason(
            code="engine-band",
            text="The score is nearer to the threshold than this engine's numbers are to the reference's.",
            value=round(abs(score - threshold.value), 6),
            limit=evidence.engine_band,
        )


def _unset(evidence: Evidence, card: ModelCard) -> list[Reason]:
    if card.threshold is None:
        return [Reason(code="no-threshold", text="The model card sets no threshold.")]
    if evidence.aggregator != card.aggregator.kind:
        return [
            Reason(
                code="aggregator-differs-from-card",
                text="The threshold was set for another way of joining the tiles' scores.",
                value=evidence.aggregator,
                limit=card.aggregator.kind,
            )
        ]
    return []


def _differs(said: str | None, wanted: str | None) -> bool:
    return said is not None and wanted is not None and said.casefold() != wanted.casefold()
