"""Verdicts: each reason appears for its cause alone and goes when the cause is removed."""

from dataclasses import replace
from typing import get_args

import pytest
from bundles_for_tests import colour_rule_card

from melanoma_infer.result import ReasonCode
from melanoma_infer.scoring.verdict import NOT_CONFIGURED, Circumstances, judge, outcome_state

CARD = colour_rule_card(aggregator={"kind": "top-area-mean"}, padding_limit=0.5, allow_scale_override=False)
"""Threshold 0.5 with the interval 0.45 to 0.55, H&E, primary, evaluable floor 0.80."""
COOL = Circumstances(
    score=0.1,
    engine_band=2**-10,
    aggregator="top-area-mean",
    unreadable=0,
    not_evaluated=0,
    non_finite=0,
    evaluable_fraction=0.95,
    padded_fraction=0.1,
    tissue_mm2=40.0,
    is_brightfield=True,
    luminance_p95=240.0,
    is_phantom=False,
    scale_source="slide",
    scale_contradiction=None,
    geometry_matches=True,
    stain="H&E",
    specimen="primary",
)
HOT = replace(COOL, score=0.9)

# code: (what the evidence needs for it, what the card needs for it)
CAUSES = {
    "no-tissue": ({"tissue_mm2": 0.0, "score": None, "evaluable_fraction": 0.0}, {}),
    "low-evaluable-tissue": ({"evaluable_fraction": 0.79}, {}),
    "scan-incomplete": ({"not_evaluated": 1}, {}),
    "hot-tiles-unreadable": ({"unreadable": 1}, {}),
    "near-threshold": ({"score": 0.46}, {}),
    "engine-band": (
        {"score": 0.375 - 2**-11},
        {"threshold": {"value": 0.375, "low": 0.375, "high": 0.375, "how": "by hand"}},
    ),
    "scale-overridden": ({"scale_source": "override"}, {}),
    "scale-contradicted": ({"scale_contradiction": "TIFF tag 0.5 µm/px; OME-XML 0.25 µm/px"}, {}),
    "geometry-differs-from-card": ({"geometry_matches": False}, {}),
    "model-knows-only-phantoms": ({}, {"domain": "phantom"}),
    "model-untrained": ({}, {"trained": False}),
    "stain-not-as-card": ({"stain": "IHC"}, {}),
    "specimen-not-as-card": ({"specimen": "metastasis"}, {}),
    "mostly-padding": ({"padded_fraction": 0.51}, {}),
    "non-finite-output": ({"unreadable": 1, "non_finite": 1}, {}),
    "model-undocumented": ({}, {"training_data": "", "intended_use": ""}),
    "no-threshold": ({}, {"threshold": None}),
    "aggregator-differs-from-card": ({"aggregator": "max"}, {}),
}


def codes(judgement):
    return [reason.code for reason in judgement.reasons]


def card_with(**changes):
    return type(CARD).model_validate(CARD.model_dump() | changes)


def test_every_reason_code_has_its_cause_here():
    assert set(CAUSES) == set(get_args(ReasonCode))


@pytest.mark.parametrize("code", sorted(set(CAUSES) - set(NOT_CONFIGURED)))
@pytest.mark.parametrize("start", [COOL, HOT], ids=["cool", "hot"])
def test_each_cause_alone_makes_the_verdict_indeterminate_and_its_removal_takes_it_away(code, start):
    evidence_changes, card_changes = CAUSES[code]
    with_cause, without = judge(replace(start, **evidence_changes), card_with(**card_changes)), judge(start, CARD)
    assert codes(with_cause) == [code]
    assert codes(without) == []
    assert without.verdict == ("suspected" if start is HOT else "not-detected")
    if code in ("scan-incomplete", "hot-tiles-unreadable") and start is HOT:
        assert with_cause.verdict == "suspected"
    else:
        assert with_cause.verdict == "indeterminate"


@pytest.mark.parametrize("code", NOT_CONFIGURED)
@pytest.mark.parametrize("start", [COOL, HOT, replace(COOL, score=0.5)], ids=["cool", "hot", "near"])
def test_a_card_that_does_not_say_enough_for_what_was_asked_makes_the_verdict_not_configured(code, start):
    evidence_changes, card_changes = CAUSES[code]
    judgement = judge(replace(start, **evidence_changes), card_with(**card_changes))
    assert (judgement.verdict, codes(judgement)) == ("not-configured", [code])


def test_a_doubt_weighs_more_than_a_missing_threshold_and_both_are_said():
    judgement = judge(replace(COOL, stain="IHC"), card_with(threshold=None))
    assert judgement.verdict == "indeterminate"
    assert codes(judgement) == ["stain-not-as-card", "no-threshold"]


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (
            {"training_data": "", "intended_use": " \n\t"},
            "The model card does not say what the model was trained on or what the model may be used for. "
            "Add training_data and intended_use to the card: until then no slide gets a verdict.",
        ),
        (
            {"training_data": " "},
            "The model card does not say what the model was trained on. "
            "Add training_data to the card: until then no slide gets a verdict.",
        ),
        (
            {"intended_use": ""},
            "The model card does not say what the model may be used for. "
            "Add intended_use to the card: until then no slide gets a verdict.",
        ),
    ],
)
def test_a_model_that_does_not_say_where_it_comes_from_or_what_it_is_for_judges_nothing(card, said):
    judgement = judge(HOT, card_with(**card))
    assert (judgement.verdict, codes(judgement)) == ("not-configured", ["model-undocumented"])
    assert judgement.reasons[0].text == said


def test_what_the_card_lacks_is_said_together():
    judgement = judge(HOT, card_with(training_data="", threshold=None))
    assert (judgement.verdict, codes(judgement)) == ("not-configured", ["model-undocumented", "no-threshold"])


def test_reasons_about_the_slide_come_before_those_about_its_score_and_its_model():
    dark = replace(COOL, is_brightfield=False, luminance_p95=12.0, scale_contradiction="0.5 and 0.25 µm/px")
    unread = replace(
        dark, geometry_matches=False, evaluable_fraction=0.1, unreadable=3, non_finite=1, padded_fraction=0.9
    )
    poor = {"domain": "phantom", "trained": False, "training_data": "", "threshold": None}
    about_slide = [
        "stain-not-as-card", "scale-contradicted", "geometry-differs-from-card", "low-evaluable-tissue",
        "hot-tiles-unreadable", "non-finite-output", "mostly-padding",
    ]  # fmt: skip
    about_model = ["model-untrained", "model-knows-only-phantoms", "model-undocumented", "no-threshold"]
    assert codes(judge(unread, card_with(**poor))) == about_slide + about_model
    near = codes(judge(replace(unread, score=0.5), CARD))
    assert near == [*about_slide, "near-threshold", "engine-band"]


def test_all_reasons_are_said_at_once():
    evidence = replace(
        COOL, evaluable_fraction=0.1, unreadable=3, non_finite=1, stain="IHC", scale_source="override", score=0.5
    )
    assert set(codes(judge(evidence, CARD))) == {
        "low-evaluable-tissue",
        "hot-tiles-unreadable",
        "non-finite-output",
        "stain-not-as-card",
        "scale-overridden",
        "near-threshold",
        "engine-band",
    }


def test_a_reason_carries_the_value_beside_its_limit():
    reasons = {
        code: judge(replace(COOL, **CAUSES[code][0]), card_with(**CAUSES[code][1])).reasons[0] for code in CAUSES
    }
    pairs = {code: (reason.value, reason.limit) for code, reason in reasons.items()}
    assert pairs["low-evaluable-tissue"] == (0.79, 0.8)
    assert pairs["near-threshold"] == (0.46, 0.5)
    assert pairs["engine-band"] == (0.000488, 2**-10)
    assert pairs["mostly-padding"] == (0.51, 0.5)
    assert pairs["stain-not-as-card"] == ("IHC", "H&E")
    assert pairs["specimen-not-as-card"] == ("metastasis", "primary")
    assert pairs["hot-tiles-unreadable"] == (1, 0)
    assert pairs["non-finite-output"] == (1, 0)
    assert pairs["aggregator-differs-from-card"] == ("max", "top-area-mean")
    assert all(reason.text.endswith(".") for reason in reasons.values())


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (0.0, "not-detected"),
        (0.4499, "not-detected"),
        (0.45, "indeterminate"),
        (0.5, "indeterminate"),
        (0.5499, "indeterminate"),
        (0.55, "suspected"),
        (1.0, "suspected"),
    ],
)
def test_the_interval_of_the_threshold_begins_with_its_low_and_ends_before_its_high(score, verdict):
    judgement = judge(replace(COOL, score=score), CARD)
    assert judgement.verdict == verdict
    assert ("near-threshold" in codes(judgement)) == (verdict == "indeterminate")


SHARP = {"threshold": {"value": 0.5, "low": 0.5, "high": 0.5, "how": "by hand"}}


@pytest.mark.parametrize(
    ("score", "band", "verdict"),
    [
        (0.5, 0.0, "suspected"),
        (0.5, 0.125, "indeterminate"),
        (0.375, 0.125, "indeterminate"),
        (0.625, 0.125, "indeterminate"),
        (0.3749, 0.125, "not-detected"),
        (0.6251, 0.125, "suspected"),
        (0.4999, 0.0, "not-detected"),
    ],
)
def test_a_score_no_farther_from_the_threshold_than_the_engines_band_is_indeterminate(score, band, verdict):
    judgement = judge(replace(COOL, score=score, engine_band=band), card_with(**SHARP))
    assert judgement.verdict == verdict
    assert codes(judgement) == (["engine-band"] if verdict == "indeterminate" else [])


def test_unreadable_tiles_do_not_take_a_suspicion_away_and_are_still_said():
    judgement = judge(replace(HOT, unreadable=7), CARD)
    assert (judgement.verdict, codes(judgement)) == ("suspected", ["hot-tiles-unreadable"])


def test_a_suspicion_near_the_threshold_is_none_and_unreadable_tiles_stay_a_reason():
    judgement = judge(replace(HOT, score=0.52, unreadable=7), CARD)
    assert judgement.verdict == "indeterminate"
    assert set(codes(judgement)) == {"near-threshold", "hot-tiles-unreadable"}


def test_tiles_without_finite_numbers_take_a_suspicion_away_and_are_not_counted_as_unreadable():
    judgement = judge(replace(HOT, unreadable=2, non_finite=2), CARD)
    assert (judgement.verdict, codes(judgement)) == ("indeterminate", ["non-finite-output"])
    (unreadable,) = [r for r in judge(replace(COOL, unreadable=5, non_finite=2), CARD).reasons if "unread" in r.code]
    assert unreadable.value == 3


@pytest.mark.parametrize("floor", [0.8, 0.0])
def test_tissue_of_which_nothing_was_evaluated_is_never_called_not_detected(floor):
    nothing = replace(COOL, score=None, evaluable_fraction=0.0)
    judgement = judge(nothing, card_with(evaluable_floor=floor))
    assert (judgement.verdict, codes(judgement)) == ("indeterminate", ["low-evaluable-tissue"])


@pytest.mark.parametrize("evaluable", [0.8, 1.0])
def test_the_evaluable_floor_itself_is_enough(evaluable):
    assert judge(replace(COOL, evaluable_fraction=evaluable), CARD).verdict == "not-detected"


def test_padding_up_to_the_limit_is_allowed():
    assert judge(replace(COOL, padded_fraction=0.5), CARD).verdict == "not-detected"


def test_a_dark_slide_is_said_to_be_of_another_stain_and_not_to_lack_tissue():
    dark = replace(
        COOL, is_brightfield=False, luminance_p95=12.34, tissue_mm2=0.0, score=None, evaluable_fraction=0.0, stain=None
    )
    (reason,) = judge(dark, CARD).reasons
    assert (reason.code, reason.value, reason.limit) == ("stain-not-as-card", 12.3, 150)


@pytest.mark.parametrize("said", [None, "h&e", "H&E"])
def test_a_stain_that_is_not_said_or_differs_in_case_is_the_cards(said):
    assert codes(judge(replace(COOL, stain=said), CARD)) == []


def test_a_card_that_names_no_stain_or_specimen_takes_any():
    anything = replace(COOL, stain="IHC", specimen="metastasis")
    assert codes(judge(anything, card_with(stain=None, specimen=None))) == []


def test_a_card_may_allow_a_scale_given_by_hand():
    assert codes(judge(replace(COOL, scale_source="override"), card_with(allow_scale_override=True))) == []


def test_a_phantom_model_may_speak_of_phantoms():
    assert judge(replace(HOT, is_phantom=True), card_with(domain="phantom")).verdict == "suspected"


OUTCOME = {"classes": ("a", "b", "c"), "malignant": ("b", "c"), "outcome": {"name": "x", "classes": ["c"]}}


@pytest.mark.parametrize(
    ("score", "state"),
    [
        (0.0, "below-threshold"),
        (0.2999, "below-threshold"),
        (0.3, "between-thresholds"),
        (0.5999, "between-thresholds"),
        (0.6, "above-threshold"),
        (1.0, "above-threshold"),
        (None, "not-assessed"),
    ],
)
def test_the_outcome_lies_below_between_or_above_the_cards_thresholds(score, state):
    card = card_with(**OUTCOME, outcome_thresholds={"low": 0.3, "high": 0.6, "how": "by hand"})
    assert outcome_state("suspected", score, card) == state


@pytest.mark.parametrize("verdict", ["not-detected", "indeterminate", "not-configured"])
def test_an_outcome_is_assessed_only_where_the_finding_is_suspected(verdict):
    card = card_with(**OUTCOME, outcome_thresholds={"low": 0.3, "high": 0.6, "how": "by hand"})
    assert outcome_state(verdict, 0.9, card) == "not-assessed"


def test_without_outcome_thresholds_no_outcome_is_assessed():
    assert outcome_state("suspected", 0.9, card_with(**OUTCOME)) == "not-assessed"


@pytest.mark.parametrize("meaningless", [{"trained": False}, {"domain": "phantom"}])
def test_a_score_that_means_nothing_is_near_to_nothing(meaningless):
    near = replace(COOL, score=0.5)
    assert codes(judge(near, CARD)) == ["near-threshold", "engine-band"]
    judgement = judge(near, card_with(**meaningless))
    assert judgement.verdict == "indeterminate"
    assert not {"near-threshold", "engine-band"} & set(codes(judgement))
    assert not any(digit in reason.text for reason in judgement.reasons for digit in "0123456789")
