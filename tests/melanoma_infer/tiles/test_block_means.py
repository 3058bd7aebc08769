"""Block means against exact integer arithmetic, and their independence of how the pixels arrive."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.tiles.block_means import BLOCK_PX_MAX, block_means

QUICK = settings(deadline=None, max_examples=60, derandomize=True)


def exact_means(pixels, side):
    """⌊mean + ½⌋ of each block, in Python's integers."""
    height, width = pixels.shape[:2]
    rows = [
        [
            [
                (2 * sum(block := pixels[y : y + side, x : x + side, c].ravel().tolist()) + len(block))
                // (2 * len(block))
                for c in range(3)
            ]
            for x in range(0, width, side)
        ]
        for y in range(0, height, side)
    ]
    return np.array(rows, np.uint8)


@QUICK
@given(
    height=st.integers(1, 31),
    width=st.integers(1, 37),
    side=st.integers(1, 40),
    seed=st.integers(0, 999),
    high=st.sampled_from([2, 256]),
)
def test_means_of_blocks_ragged_ones_included_are_exact_and_rounded_half_up(height, width, side, seed, high):
    pixels = np.random.default_rng(seed).integers(0, high, (height, width, 3)).astype(np.uint8) + np.uint8(0)
    means = block_means(pixels, side)
    assert means.dtype == np.uint8
    np.testing.assert_array_equal(means, exact_means(pixels, side))


@pytest.mark.parametrize(("values", "mean"), [((0, 1, 0, 1), 1), ((0, 0, 0, 1), 0), ((254, 255, 255, 254), 255)])
def test_one_half_rounds_up(values, mean):
    pixels = np.repeat(np.array(values, np.uint8).reshape(2, 2, 1), 3, axis=2)
    assert block_means(pixels, 2).tolist() == [[[mean] * 3]]


@QUICK
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 20),
    side=st.integers(1, 9),
    boxes_in_band=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_bands_of_whole_blocks_give_the_same_as_one_piece(height, width, side, boxes_in_band, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    band = boxes_in_band * side
    parts = [block_means(pixels[y : y + band], side) for y in range(0, height, band)]
    np.testing.assert_array_equal(np.concatenate(parts), block_means(pixels, side))


@pytest.mark.parametrize("side", [BLOCK_PX_MAX - 1, BLOCK_PX_MAX])
@pytest.mark.parametrize("value", [255, 254])
def test_the_largest_blocks_do_not_overflow(side, value):
    pixels = np.full((side + 3, side + 1, 3), value, np.uint8)
    assert np.unique(block_means(pixels, side)).tolist() == [value]


def test_memory_order_changes_nothing():
    pixels = np.random.default_rng(5).integers(0, 256, (23, 41, 3), dtype=np.uint8)
    np.testing.assert_array_equal(block_means(np.asfortranarray(pixels), 4), block_means(pixels, 4))
    np.testing.assert_array_equal(block_means(pixels[::-1, ::-1], 4), block_means(pixels[::-1, ::-1].copy(), 4))


@pytest.mark.parametrize("side", [0, -1, BLOCK_PX_MAX + 1])
def test_a_side_that_no_block_has_is_refused(side):
    with pytest.raises(ValueError, match="blocks of side"):
        block_means(np.zeros((4, 4, 3), np.uint8), side)
