"""The head on the host: a tile's numbers are the paper's, and the same bits whatever tiles are beside it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.head import Head, softmax

TILES = 150


def random_head(classes):
    random = np.random.default_rng(classes)
    shapes = ((128, 7), (128,), (128,), (64, 128), (64,), (classes, 64), (classes,))
    return Head(*(random.normal(0, 0.3, shape) for shape in shapes))


HEADS = {"demo": open_bundle("demo").head} | {f"{classes} classes": random_head(classes) for classes in (2, 4, 9)}


def features_and_patient(head):
    random = np.random.default_rng(5)
    features = random.normal(0, 2, (TILES, len(head.b1))).astype(np.float32)
    return features, random.normal(0, 1, head.w1_patient.shape[1])


def one_tile(head, features, patient):
    """Probabilities (K,) of one tile, written down again from equation 4: a vector at a time."""
    first = np.maximum(features.astype(np.float64) + (head.w1_patient @ patient + head.b1), 0.0)
    second = np.maximum(head.w2 @ first + head.b2, 0.0)
    return softmax(head.w3 @ second + head.b3)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_many_tiles_have_the_bits_that_each_has_alone(head):
    features, patient = features_and_patient(head)
    alone = np.stack([one_tile(head, row, patient) for row in features])
    for count in (1, 2, 3, 8, 31, 32, 128, TILES):
        assert np.array_equal(head.probabilities(features[:count], patient), alone[:count])


@given(st.permutations(range(TILES)), st.integers(1, TILES), st.sampled_from([0.0, 1e30, np.nan, np.inf]))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_neighbours_and_their_order_change_no_bit_of_a_tile(order, count, neighbour):
    for head in HEADS.values():
        features, patient = features_and_patient(head)
        whole = head.probabilities(features, patient)
        chosen = list(order[:count])
        assert np.array_equal(head.probabilities(features[chosen], patient), whole[chosen])
        others = features.copy()
        others[chosen] = neighbour
        kept = np.setdiff1d(np.arange(TILES), chosen)
        with np.errstate(all="ignore"):
            assert np.array_equal(head.probabilities(others, patient)[kept], whole[kept])


def test_no_tiles_have_no_logits():
    features, patient = features_and_patient(HEADS["demo"])
    assert HEADS["demo"].logits(features[:0], patient).shape == (0, 4)
