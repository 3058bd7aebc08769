"""Parity rows: the numbers of a small case worked out by hand."""

import numpy as np
import pytest

from melanoma_infer.card import ModelCard, Threshold
from melanoma_infer.engines.base import Numerics
from mminfer_export.parity import compare

NUMERICS = Numerics("openvino", "1", "bf16", "cpu")


def card(threshold=None):
    return ModelCard(
        name="test",
        classes=("a", "b", "c"),
        malignant=("b", "c"),
        tile_px=32,
        um_per_px=1,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize="pillow-bilinear",
        threshold=None if threshold is None else Threshold(value=threshold, low=threshold, high=threshold, how="test"),
    )


REFERENCE = np.array([[0.9, 0.1, 0.0], [0.6, 0.2, 0.2], [0.2, 0.3, 0.5]])


def outputs(probabilities, depth_mm=None):
    return {"probabilities": probabilities} | ({} if depth_mm is None else {"depth_mm": np.float32(depth_mm)})


def test_a_row_holds_largest_and_tail_differences_of_probabilities_and_depth():
    other = REFERENCE + np.array([[0, 0, 0], [0, 0, 0], [-0.01, 0, 0.01]])
    row = compare(
        outputs(REFERENCE, [1, 2, 3]), outputs(other, [1, 2.5, 3]), card=card(), numerics=NUMERICS, on="3 tiles"
    )
    assert (row.engine, row.precision, row.tiles, row.on) == ("openvino", "bf16", 3, "3 tiles")
    assert row.max_dp == pytest.approx(0.01)
    # 99.9 % of nine values lies at rank 7.992 of 0…8: between the two that are 0.01.
    assert row.p999_dp == pytest.approx(0.01)
    assert row.max_dmm == 0.5
    assert row.p999_dmm == pytest.approx(0.998 * 0.5)


def test_without_depth_there_is_no_millimetre():
    row = compare(outputs(REFERENCE), outputs(REFERENCE), card=card(), numerics=NUMERICS, on="")
    assert (row.max_dp, row.max_dmm, row.p999_dmm) == (0.0, None, None)


@pytest.mark.parametrize(
    ("threshold", "second_score", "flips"),
    [
        (0.5, 0.49, 0),
        (0.5, 0.5, 1),  # at the threshold counts as above
        (0.3, 0.5, 0),
        (0.45, 0.4, 0),
        (None, 0.41, 0),  # the reference's median is 0.4, the second tile's own score
        (None, 0.39, 1),
        (None, 0.4 - 5e-5, 0),  # rounding decides nothing
    ],
)
def test_decision_flips_are_tiles_that_change_sides_of_the_threshold_or_of_the_references_median(
    threshold, second_score, flips
):
    other = REFERENCE.copy()
    other[1] = [1 - second_score, second_score, 0]
    row = compare(outputs(REFERENCE), outputs(other), card=card(threshold), numerics=NUMERICS, on="")
    assert row.decision_flips == flips


@pytest.mark.parametrize("other", [REFERENCE[:2], REFERENCE[:0]])
def test_outputs_of_other_tiles_cannot_be_compared(other):
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(outputs(REFERENCE), outputs(other), card=card(), numerics=NUMERICS, on="")
