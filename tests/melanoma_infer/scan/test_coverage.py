"""The coverage against a map of bits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.geometry import RectPx
from melanoma_infer.scan.coverage import Coverage

SIDE = 24
RECTS = st.builds(RectPx, st.integers(0, 20), st.integers(0, 20), st.integers(0, 12), st.integers(0, 12))


def cells(rects):
    """How often each pixel is in one of the rectangles."""
    count = np.zeros((40, 40), int)
    for rect in rects:
        count[rect.y : rect.bottom, rect.x : rect.right] += 1
    return count


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rects=st.lists(RECTS, max_size=12))
def test_each_pixel_is_new_once_and_known_ever_after(rects):
    coverage, before = Coverage(), np.zeros((40, 40), bool)
    for rect in rects:
        new, known = coverage.add(rect)
        frame = cells([rect]) > 0
        assert np.array_equal(cells(new), frame & ~before)
        assert np.array_equal(cells(known), frame & before)
        before |= frame
        assert coverage.area == before.sum()


def test_strips_in_order_are_one_run_of_rows_and_so_are_shuffled_ones_at_the_end():
    coverage = Coverage()
    for top in range(0, 10_000, 10):
        coverage.add(RectPx(0, top, 100_000, 10))
        assert coverage.runs <= 2
    shuffled = Coverage()
    for top in np.random.default_rng(1).permutation(1000).tolist():
        shuffled.add(RectPx(0, 10 * top, 100_000, 10))
    assert shuffled.runs == 2  # the last one is empty
    assert shuffled.area == coverage.area == 10_000 * 100_000
