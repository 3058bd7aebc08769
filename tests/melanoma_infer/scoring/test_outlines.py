"""Outlines: the rings round labelled cells, against a rule that knows nothing of how they were found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from melanoma_infer.scoring.outlines import doubled_area, outlines


@settings(deadline=None, max_examples=200, derandomize=True)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_rings_enclose_exactly_the_cells(mask):
    """Every component's rings, filled by an independent rule (even-odd at cell centres), give its cells again."""
    labels, count = ndimage.label(mask)
    found = outlines(labels)
    assert len(found) == count
    for label, rings in enumerate(found, start=1):
        cells = labels == label
        corners = [list(map(tuple, ring.tolist())) for ring in rings]
        assert all(len(set(ring)) == len(ring) for ring in corners)  # a ring that touches itself is no valid polygon
        filled = np.zeros_like(cells)
        for y, x in np.ndindex(*cells.shape):
            crossings = 0
            for ring in corners:
                for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
                    crossings += x0 == x1 and x0 > x + 0.5 and min(y0, y1) < y + 0.5 < max(y0, y1)
            filled[y, x] = crossings % 2
        assert (filled == cells).all()
        areas = [doubled_area(ring) / 2 for ring in rings]
        assert sum(areas) == cells.sum()  # holes run the other way round, and count against
        assert areas[0] > 0 > max(areas[1:], default=-1)
        assert areas[1:] == sorted(areas[1:])  # the largest hole first


@settings(deadline=None, max_examples=100, derandomize=True)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_a_ring_begins_at_its_leftmost_corner_and_turns_at_every_one(mask):
    for rings in outlines(ndimage.label(mask)[0]):
        for ring in rings:
            corners = ring.tolist()
            assert corners[0] == min(corners)
            steps = np.sign(np.diff(np.vstack([ring, ring[:1]]), axis=0))
            assert (steps != np.roll(steps, 1, axis=0)).all()


def test_labels_that_meet_have_a_border_each():
    first, second = outlines(np.array([[1, 1, 2]], np.int32))
    assert first[0].tolist() == [[0, 0], [2, 0], [2, 1], [0, 1]]
    assert second[0].tolist() == [[2, 0], [3, 0], [3, 1], [2, 1]]


def test_no_cells_have_no_outlines():
    assert outlines(np.zeros((3, 4), np.int32)) == []


@pytest.mark.parametrize("far", [0, 10**6])
def test_an_area_loses_no_digit_far_from_the_origin(far):
    square = np.array([(0, 0), (0.01, 0), (0.01, 0.01), (0, 0.01)]) + far
    assert doubled_area(square) == pytest.approx(0.0002, rel=1e-6)
