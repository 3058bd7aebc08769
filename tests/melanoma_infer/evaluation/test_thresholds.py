"""Thresholds against numbers computed by hand and by scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from melanoma_infer.errors import UsageError
from melanoma_infer.evaluation.thresholds import at_sensitivity, set_threshold, youden

SCORES = np.array([0.1, 0.2, 0.35, 0.4, 0.6, 0.8, 0.9])
POSITIVE = np.array([False, False, True, False, True, True, True])


def test_youden_is_the_middle_of_the_gap_with_the_largest_index():
    """Between 0.4 and 0.6: sensitivity 3/4 and specificity 1; between 0.2 and 0.35: 1 and 2/3."""
    assert youden(POSITIVE, SCORES) == pytest.approx(0.5)


def test_of_equal_indices_the_widest_gap_is_taken():
    scores, positive = np.array([0.1, 0.2, 0.3, 0.9]), np.array([False, True, False, True])
    assert youden(positive, scores) == pytest.approx(0.6)  # 0.15 has the same index of 1/2, and a gap of 0.1


def test_youden_s_index_is_scikit_learn_s_on_random_scores():
    rng = np.random.default_rng(5)
    for _ in range(20):
        positive = rng.random(60) < 0.4
        scores = np.round(rng.normal(positive.astype(float)), 1)  # with ties
        threshold = youden(positive, scores)
        fpr, tpr, _ = roc_curve(positive, scores)
        own = (scores[positive] >= threshold).mean() - (scores[~positive] >= threshold).mean()
        assert own == pytest.approx((tpr - fpr)[1:-1].max())
        assert not (scores == threshold).any()


@pytest.mark.parametrize(("target", "threshold"), [(0.75, 0.5), (0.5, 0.7), (0.76, 0.275), (1.0, 0.275)])
def test_the_highest_threshold_that_reaches_a_sensitivity(target, threshold):
    assert at_sensitivity(POSITIVE, SCORES, target) == pytest.approx(threshold)


def test_where_the_lowest_score_is_malignant_full_sensitivity_suspects_all():
    assert at_sensitivity(np.array([True, False, True]), np.array([0.1, 0.2, 0.3]), 1.0) == 0.1


@pytest.mark.parametrize(
    ("positive", "scores"), [([True, True], [0.1, 0.9]), ([False, False], [0.1, 0.9]), ([True, False], [0.5, 0.5])]
)
def test_without_two_kinds_and_two_scores_there_is_no_threshold(positive, scores):
    with pytest.raises(UsageError, match="cannot be set"):
        set_threshold(np.array(positive), np.array(scores), ["a", "b"])
    assert math.isnan(youden(np.array(positive), np.array(scores)))


def test_the_interval_holds_the_threshold_and_narrows_with_patients():
    rng = np.random.default_rng(1)

    def widths(patients: int) -> float:
        positive = np.arange(patients) % 2 == 1
        scores = rng.normal(3.0 * positive)
        found = set_threshold(positive, scores, [str(number) for number in range(patients)])
        assert found.low <= found.value <= found.high
        assert (found.positive, found.negative) == (patients // 2, patients // 2)
        return found.high - found.low

    assert widths(400) < widths(20)
