"""Slide scores against numbers worked out by hand, and what must not change them."""

from fractions import Fraction

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.card import ClassPriors
from melanoma_infer.records import SCORE_STEPS
from melanoma_infer.scoring.aggregation import (
    aggregate,
    exact_sums,
    malignant_probabilities,
    normalise_classes,
    outcome_score,
)

QUICK = settings(deadline=None, max_examples=80, derandomize=True)
CLASSES = ("none", "benign", "calm", "spread")
CARD = colour_rule_card(
    classes=CLASSES,
    malignant=("calm", "spread"),
    outcome={"name": "metastasis recorded", "classes": ["spread"]},
)
scores = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)
kinds = st.sampled_from(["mean", "max", "top-area-mean"])


def top_area(values, area_mm2, tile_mm2=1.0):
    return aggregate(np.array(values, float), "top-area-mean", tile_mm2=tile_mm2, area_mm2=area_mm2)


def test_mean_and_max_are_the_papers():
    values = np.array([0.1, 0.4, 0.7])
    assert aggregate(values, "mean", tile_mm2=1, area_mm2=1) == pytest.approx(0.4)
    assert aggregate(values, "max", tile_mm2=1, area_mm2=1) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize(
    ("area_mm2", "expected"),
    [
        (0.5, 0.9),
        (1.0, 0.9),
        (1.5, (0.9 + 0.5 * 0.5) / 1.5),
        (2.0, 0.7),
        (3.25, (0.9 + 0.5 + 0.2 + 0.25 * 0.1) / 3.25),
        (4.0, 1.7 / 4),
        (99.0, 1.7 / 4),
    ],
)
def test_top_area_weighs_the_last_tile_by_what_is_missing_and_never_fills_up(area_mm2, expected):
    assert top_area([0.2, 0.9, 0.1, 0.5], area_mm2) == pytest.approx(expected, rel=1e-12)


def test_top_area_counts_mm2_and_not_tiles():
    values = [0.9, 0.7, 0.5, 0.3]
    assert top_area(values, 9.0, tile_mm2=9.0) == pytest.approx(0.9)
    assert top_area(values, 9.0, tile_mm2=4.5) == pytest.approx(0.8)
    assert top_area(values, 9.0, tile_mm2=2.25) == pytest.approx(0.6)


@pytest.mark.parametrize("kind", ["mean", "max", "top-area-mean"])
def test_no_tiles_have_no_score(kind):
    assert aggregate(np.zeros(0), kind, tile_mm2=1, area_mm2=1) is None


@QUICK
@given(values=scores, kind=kinds, area=st.floats(0.1, 20), seed=st.integers(0, 99))
def test_the_order_of_tiles_changes_no_bit(values, kind, area, seed):
    shuffled = np.random.default_rng(seed).permutation(values)
    results = [aggregate(v, kind, tile_mm2=0.7, area_mm2=area) for v in (values, shuffled)]
    assert results[0] == results[1]


@QUICK
@given(values=scores, area=st.floats(0.1, 20))
def test_a_score_is_that_of_fractions_to_a_step(values, area):
    ordered = sorted(map(Fraction, values.tolist()), reverse=True)
    covering = min(Fraction(area), Fraction(len(values)))
    weights = [min(Fraction(1), max(Fraction(0), covering - rank)) for rank in range(len(ordered))]
    exact = {
        "mean": sum(ordered) / len(ordered),
        "max": ordered[0],
        "top-area-mean": sum(w * v for w, v in zip(weights, ordered, strict=True)) / covering,
    }
    for kind, value in exact.items():
        assert aggregate(values, kind, tile_mm2=1.0, area_mm2=area) == pytest.approx(float(value), abs=1 / SCORE_STEPS)


def test_sums_of_whole_numbers_are_exact_for_as_many_tiles_as_a_slide_can_have():
    steps = np.full(1 << 20, SCORE_STEPS) - np.arange(1 << 20)
    total = (1 << 20) * SCORE_STEPS - sum(range(1 << 20))
    assert exact_sums(steps, 2) == (total, SCORE_STEPS, 2 * SCORE_STEPS - 1, SCORE_STEPS - 1)


@QUICK
@given(values=scores, cooler=st.lists(st.floats(0, 1), max_size=8), area=st.floats(0.1, 12))
def test_cooler_tissue_changes_top_area_by_nothing_once_the_area_is_covered(values, cooler, area):
    area = min(area, float(len(values)))
    cooler = np.array(cooler) * values.min()
    assert top_area([*values, *cooler], area) == top_area(values, area)


@QUICK
@given(values=scores, kind=kinds, area=st.floats(0.1, 20))
def test_a_score_lies_between_the_lowest_and_the_highest_scoring_tile(values, kind, area):
    score = aggregate(values, kind, tile_mm2=1.0, area_mm2=area)
    assert values.min() - 1e-12 <= score <= values.max() + 1e-12
    assert score <= 1.0


@QUICK
@given(values=scores, area=st.floats(0.1, 20), factor=st.floats(0.1, 9))
def test_top_area_depends_on_the_ratio_of_the_areas_alone(values, area, factor):
    assert top_area(values, area * factor, tile_mm2=factor) == pytest.approx(top_area(values, area), abs=1e-9)


def test_a_tiles_malignant_probability_is_the_sum_of_its_malignant_classes():
    rows = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5000001]])
    np.testing.assert_allclose(malignant_probabilities(rows, CARD), [0.7, 0.0, 1.0], rtol=1e-12)
    assert malignant_probabilities(rows, CARD).max() == 1.0


def test_class_normalisation_is_bayes_by_hand():
    """Trained on 50 : 50, used where tumour is 1 in 10: odds of 4 become 4 · (0.1/0.5) / (0.9/0.5) = 4/9."""
    priors = ClassPriors(trained={"normal": 0.5, "tumour": 0.5}, stated={"normal": 0.9, "tumour": 0.1})
    normalised = normalise_classes(np.array([[0.2, 0.8]]), ("normal", "tumour"), priors)
    np.testing.assert_allclose(normalised, [[9 / 13, 4 / 13]], rtol=1e-12)


@QUICK
@given(
    weights=st.lists(st.floats(0.01, 5), min_size=4, max_size=4),
    trained=st.lists(st.floats(0.05, 5), min_size=4, max_size=4),
    stated=st.lists(st.floats(0.05, 5), min_size=4, max_size=4),
)
def test_class_normalisation_turns_odds_by_the_priors_and_back(weights, trained, stated):
    p = np.array([weights]) / sum(weights)
    there = ClassPriors(
        trained=dict(zip(CLASSES, trained, strict=True)), stated=dict(zip(CLASSES, stated, strict=True))
    )
    back = ClassPriors(trained=there.stated, stated=there.trained)
    q = normalise_classes(p, CLASSES, there)
    assert q.sum() == pytest.approx(1)
    odds = p[0, 1] / p[0, 0] * (stated[1] / trained[1]) / (stated[0] / trained[0])
    assert q[0, 1] / q[0, 0] == pytest.approx(odds, rel=1e-9)
    np.testing.assert_allclose(normalise_classes(q, CLASSES, back), p, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_equal_priors_change_nothing(scale):
    p = np.array([[0.1, 0.2, 0.3, 0.4]])
    trained = dict(zip(CLASSES, (0.4, 0.3, 0.2, 0.1), strict=True))
    priors = ClassPriors(trained=trained, stated={name: value * scale for name, value in trained.items()})
    np.testing.assert_allclose(normalise_classes(p, CLASSES, priors), p, rtol=1e-12)


ROWS = np.array(
    [
        [0.1, 0.1, 0.6, 0.2],  # malignant 0.8
        [0.3, 0.2, 0.1, 0.4],  # malignant 0.5, the threshold
        [0.5, 0.1, 0.0, 0.4],  # malignant 0.4: not counted
    ]
)


def test_the_outcome_score_is_the_outcomes_share_of_malignant_tiles():
    assert outcome_score(ROWS, CARD) == pytest.approx((0.2 + 0.4) / (0.8 + 0.5))
    assert outcome_score(ROWS[::-1], CARD) == outcome_score(ROWS, CARD)


def test_malignant_tiles_are_those_from_the_cards_threshold_on():
    low = colour_rule_card(
        classes=CLASSES,
        malignant=("calm", "spread"),
        outcome={"name": "x", "classes": ["spread"]},
        threshold={"value": 0.35, "low": 0.3, "high": 0.4, "how": "by hand"},
    )
    assert outcome_score(ROWS, low) == pytest.approx(1.0 / 1.7)


def test_without_an_outcome_or_malignant_tiles_there_is_no_outcome_score():
    assert outcome_score(ROWS, colour_rule_card(classes=CLASSES, malignant=("calm", "spread"))) is None
    assert outcome_score(ROWS[2:], CARD) is None
    assert outcome_score(np.zeros((0, 4)), CARD) is None


def test_an_outcome_score_is_never_more_than_one():
    """A float32 softmax may sum to 1.0000001, and the malignant share is clipped."""
    card = colour_rule_card(
        classes=CLASSES,
        malignant=("benign", "calm", "spread"),
        outcome={"name": "x", "classes": ["spread", "calm", "benign"]},
    )
    rows = np.array([[0.0, 0.3, 0.3, 0.4000001]])
    assert outcome_score(rows, card) == 1.0
