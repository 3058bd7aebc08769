"""Figures against scikit-learn, SciPy and numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics

from melanoma_infer.evaluation.figures import auc, decisions, depth_errors


def test_the_figures_of_a_confusion_matrix_are_scikit_learn_s():
    rng = np.random.default_rng(2)
    positive, suspected = rng.random(200) < 0.3, rng.random(200) < 0.5
    found = decisions(positive, suspected)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(positive, suspected))
    assert found.precision == pytest.approx(metrics.precision_score(positive, suspected))
    assert found.sensitivity == pytest.approx(metrics.recall_score(positive, suspected))
    assert found.specificity == pytest.approx(metrics.recall_score(~positive, ~suspected))
    assert found.f1 == pytest.approx(metrics.f1_score(positive, suspected))


def test_the_paper_s_accuracy_follows_from_its_confusion_matrix():
    """Fig. 3: 12 false positives, 14 false negatives, 174 of 200 right; how the 174 divide is not said."""
    positive = np.repeat([True, True, False, False], [80, 14, 12, 94])
    suspected = np.repeat([True, False, True, False], [80, 14, 12, 94])
    assert decisions(positive, suspected).accuracy == pytest.approx(0.87)


def test_a_share_of_nothing_is_none():
    nothing = decisions(np.array([False]), np.array([False]))
    assert (nothing.precision, nothing.sensitivity, nothing.specificity) == (None, None, 1.0)
    assert auc(np.array([True, True]), np.array([0.1, 0.2])) is None


def test_auc_counts_pairs_in_the_right_order():
    """Of the four pairs of a malignant and another score, three are in the right order."""
    assert auc(np.array([True, True, False, False]), np.array([0.9, 0.3, 0.5, 0.1])) == pytest.approx(0.75)


def test_depth_errors():
    measured, estimated = np.array([1.0, 2.0, 3.0]), np.array([1.1, 1.8, 3.3])
    found = depth_errors(measured, estimated)
    assert found is not None
    assert found.mae_mm == pytest.approx(0.2)
    assert found.sd_mm == pytest.approx(np.std([0.1, -0.2, 0.3]))
    assert found.pearson_r == pytest.approx(pearsonr(measured, estimated).statistic)
    assert depth_errors(np.array([]), np.array([])) is None
    alone = depth_errors(np.array([1.0]), np.array([1.5]))
    assert alone is not None
    assert alone.pearson_r is None
