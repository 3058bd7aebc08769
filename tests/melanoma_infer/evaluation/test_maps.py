"""From which activation a map shows a lesion."""

from __future__ import annotations

import numpy as np
import pytest
from training_for_tests import training_card

from melanoma_infer.evaluation.maps import fitted_region_threshold, map_scale, region_threshold

LESION = np.array([False, False, True, True])
MAPS = np.zeros((4, 2, 2), np.float32)
MAPS[2] = [[1, 2], [3, -9]]
MAPS[3] = [[4, -1], [5, -1]]


def test_the_scale_is_the_75th_percentile_where_the_map_is_positive():
    """Of 1, 2, 3, 4, 5; tiles without a lesion do not count."""
    louder = MAPS.copy()
    louder[0] = 100
    assert map_scale(MAPS, LESION) == map_scale(louder, LESION) == 4.0


def test_without_a_positive_activation_there_is_no_scale():
    assert map_scale(-np.abs(MAPS), LESION) is None


def test_the_fitted_threshold_is_that_of_the_best_agreement_with_the_outlines():
    """Evidence of 1, ¾ and ½ inside, ¼ outside; the third tile is not known and agrees with nothing."""
    maps = np.array([[[4, 3], [2, 1]], [[0, 1], [0, 0]], [[4, 4], [4, 4]]], float)
    shares = np.array([[[1, 1], [1, 0]], [[0, 0], [0, 0]], [[np.nan] * 2] * 2])
    certain = np.array([[0, 0.5, 0.5]] * 3)
    arguments = {"card": training_card(), "scale": 4.0}
    found = fitted_region_threshold(maps, certain, shares, **arguments)
    assert found is not None
    assert 0.25 < found <= 0.5
    # Half the probability of a lesion halves the evidence.
    halved = fitted_region_threshold(maps, np.array([[0.5, 0.5, 0]] * 3), shares, **arguments)
    assert halved is not None
    assert 0.125 < halved <= 0.25
    assert fitted_region_threshold(maps, certain, np.zeros((3, 2, 2)), **arguments) is None


def test_the_region_threshold_is_between_the_strongest_cells_of_both_kinds():
    """Evidence p(lesion) · min(1, activation / scale): 0.1 · 0.5 and 0.2 · 0.5 without a lesion; 0.9 · 3/4 and 0.8."""
    maps = MAPS.copy()
    maps[:2, 0, 0] = 2
    probabilities = np.array([[0.9, 0.1, 0], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.2, 0.8, 0]])
    found = region_threshold(maps, probabilities, LESION, card=training_card(), scale=4.0)
    assert found == pytest.approx((0.1 + 0.675) / 2, abs=0.005)


def test_the_region_threshold_stays_within_bounds_and_needs_both_kinds():
    probabilities = np.array([[1, 0, 0], [1, 0, 0], [0.99, 0.01, 0], [0.99, 0.01, 0]], float)
    arguments = {"card": training_card(), "scale": 4.0}
    assert region_threshold(MAPS, probabilities, LESION, **arguments) == 0.1
    assert region_threshold(MAPS, probabilities, np.ones(4, bool), **arguments) is None
