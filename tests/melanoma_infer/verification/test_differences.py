"""Differences between outputs: small cases worked out by hand, and which figure exceeds its tolerance."""

from __future__ import annotations

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.bundle.head import softmax
from melanoma_infer.card import ModelCard, Threshold
from melanoma_infer.tolerances import DEFAULT_TOLERANCES, Tolerance
from melanoma_infer.verification.differences import SampleSlide, beyond, differences


@pytest.fixture(scope="module")
def demo():
    return open_bundle("demo")


def outputs_of(bundle, n=20, **changes):
    """Outputs that fit each other: probabilities are the head's of the features."""
    rng = np.random.default_rng(7)
    attention = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (n, 16, 1))
    features = rng.normal(size=(n, 128)).astype(np.float32) + changes.pop("features", 0)
    logits = bundle.head.logits(features, _unknown(bundle))
    return {
        "probabilities": softmax(logits + changes.pop("logits", 0)).astype(np.float32),
        "depth_mm": np.linspace(0.5, 4, n).astype(np.float32) + np.float32(changes.pop("depth_mm", 0)),
        "attention": attention + np.float32(changes.pop("attention", 0)),
        "cam": rng.normal(size=(n, 3, 16, 16)).astype(np.float32) + changes.pop("cam", 0),
        "features": features,
    }


def _unknown(bundle):
    from melanoma_infer.patients.patient import Patient, one_hot

    return one_hot(Patient(), bundle.card.patient_fields)


def test_equal_outputs_differ_by_nothing(demo):
    same = differences(demo, outputs_of(demo), outputs_of(demo), [SampleSlide((0, 1, 2), 9.0)])
    numbers = {name: value for name, value in vars(same).items() if name != "cam_correlation"}
    assert set(numbers.values()) == {0}
    assert same.cam_correlation == pytest.approx(1, abs=1e-12)
    assert all(each.ratio <= 1e-6 for each in beyond(same, DEFAULT_TOLERANCES["fp32"]))


def test_figures_are_what_was_put_in(demo):
    seen = differences(demo, outputs_of(demo), outputs_of(demo, depth_mm=0.25, attention=0.125))
    assert seen.max_dmm == pytest.approx(0.25, abs=1e-6)
    assert seen.p999_dmm == pytest.approx(0.25, abs=1e-6)
    assert seen.p999_dattention == pytest.approx(0.125, abs=1e-6)
    assert seen.max_dp == 0


def test_features_are_measured_against_their_own_size(demo):
    reference = outputs_of(demo)
    seen = differences(demo, reference, {**reference, "features": reference["features"] * 1.5})
    assert seen.features_rms == pytest.approx(0.5, rel=1e-5)
    # A slide's score is the head's, so wrong features move it, whatever the graph's own probabilities say.
    assert seen.max_dp > 0.01
    assert seen.max_dscore > 0.01


def test_logits_tell_what_probabilities_near_zero_hide(demo):
    shift = np.zeros(4)
    shift[3] = -8
    rare = outputs_of(demo, logits=shift)
    seen = differences(demo, rare, {**rare, "probabilities": outputs_of(demo, logits=shift * 1.1)["probabilities"]})
    assert seen.max_dp < 2e-3
    assert seen.p999_dlogit > 0.5


def test_a_flip_is_a_score_on_the_other_side_of_the_threshold(demo):
    reference = outputs_of(demo, n=4)
    other = {name: values.copy() for name, values in reference.items()}
    reference["probabilities"] = np.array([[0.5, 0, 0.5, 0], [0.6, 0, 0.4, 0], [0.4, 0, 0.6, 0], [0.5, 0, 0.5, 0]])
    bundle = _graph_only(demo, threshold=Threshold(value=0.5, low=0.45, high=0.55, how="by hand"))
    for row, flips in (([0.6, 0, 0.4, 0], 1), ([0.4, 0, 0.6, 0], 0)):
        other["probabilities"] = reference["probabilities"].copy()
        other["probabilities"][0] = row
        assert differences(bundle, reference, other).decision_flips == flips
    # The slide's score is the mean of its highest-scoring tiles that cover 9 mm²: one tile of 9 mm², row 2.
    slides = [SampleSlide((1, 2), 9.0)]
    other["probabilities"] = reference["probabilities"].copy()
    other["probabilities"][2] = [0.6, 0, 0.4, 0]
    seen = differences(bundle, reference, other, slides)
    assert (seen.decision_flips, seen.slide_flips) == (2, 1)
    assert seen.max_dscore == pytest.approx(0.2)


def _graph_only(bundle, **card):
    fields = {name: value for name, value in vars(bundle).items() if name != "precisions"}
    return Bundle(**{**fields, "head": None, "card": bundle.card.model_copy(update=card)})


def test_a_map_is_held_by_its_correlation(demo):
    reference = outputs_of(demo)
    turned = {**reference, "cam": reference["cam"].copy()}
    turned["cam"][:, 1] = -turned["cam"][:, 1]
    assert differences(demo, reference, turned).cam_correlation == pytest.approx(-1)
    doubled = {**reference, "cam": reference["cam"] * 2}
    assert differences(demo, reference, doubled).cam_correlation == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("p99.9 |Δmm|", {"depth_mm": 0.05}),
        ("p99.9 |Δattention|", {"attention": 0.05}),
        ("features' relative RMS", {"features": 1e-3}),
    ],
)
def test_each_figure_has_a_tolerance_of_its_own(demo, name, change):
    tolerance = Tolerance(dp=1.0, dmm=0.005, features_rms=1e-4, dlogit=100, attention=1e-4, cam_correlation=0.9)
    excesses = beyond(differences(demo, outputs_of(demo), outputs_of(demo, **change)), tolerance)
    assert [each.name for each in excesses if each.ratio > 1] == [name]
    assert excesses[0].ratio > 3


def test_a_card_s_tolerance_keeps_the_defaults_of_what_it_leaves_out(demo):
    card = demo.card.model_copy(update={"tolerances": {"fp16": Tolerance(dp=0.5, dmm=1.0)}})
    assert card.tolerance_of("fp16") == DEFAULT_TOLERANCES["fp16"].model_copy(update={"dp": 0.5, "dmm": 1.0})
    assert card.tolerance_of("int8") == DEFAULT_TOLERANCES["int8"]


REFERENCE = np.array([[0.9, 0.1, 0.0], [0.6, 0.2, 0.2], [0.2, 0.3, 0.5]])


def three_classes(demo, threshold=None):
    """A bundle without a head, whose classes b and c are malignant."""
    at = None if threshold is None else Threshold(value=threshold, low=threshold, high=threshold, how="test")
    card = ModelCard(
        name="test", classes=("a", "b", "c"), malignant=("b", "c"), tile_px=32, um_per_px=1, mean=(0, 0, 0),
        std=(1, 1, 1), resize="pillow-bilinear", threshold=at,
    )  # fmt: skip
    return Bundle(name="test", digest="", card=card, graphs={}, head=None, golden=demo.golden, parity=())


def probabilities_and_depth(probabilities, depth_mm=None):
    return {"probabilities": probabilities} | ({} if depth_mm is None else {"depth_mm": np.float32(depth_mm)})


def test_largest_and_tail_differences_of_probabilities_and_depth(demo):
    other = REFERENCE + np.array([[0, 0, 0], [0, 0, 0], [-0.01, 0, 0.01]])
    seen = differences(
        three_classes(demo),
        probabilities_and_depth(REFERENCE, [1, 2, 3]),
        probabilities_and_depth(other, [1, 2.5, 3]),
    )
    assert seen.max_dp == pytest.approx(0.01)
    # 99.9 % of nine values is at rank 7.992 of 0…8: between the two that are 0.01.
    assert seen.p999_dp == pytest.approx(0.01)
    assert seen.max_dmm == 0.5
    assert seen.p999_dmm == pytest.approx(0.998 * 0.5)


def test_without_depth_there_is_no_millimetre(demo):
    same = probabilities_and_depth(REFERENCE)
    seen = differences(three_classes(demo), same, same)
    assert (seen.max_dp, seen.max_dmm, seen.p999_dmm) == (0.0, None, None)


@pytest.mark.parametrize(
    ("threshold", "second_score", "flips"),
    [
        (0.5, 0.49, 0),
        (0.5, 0.5, 1),  # a score equal to the threshold counts as above it
        (0.3, 0.5, 0),
        (0.45, 0.4, 0),
        (None, 0.1, 0),  # a card without a threshold decides nothing
    ],
)
def test_a_tile_flips_at_the_card_s_threshold(demo, threshold, second_score, flips):
    other = REFERENCE.copy()
    other[1] = [1 - second_score, second_score, 0]
    pair = (probabilities_and_depth(each) for each in (REFERENCE, other))
    assert differences(three_classes(demo, threshold), *pair).decision_flips == flips


@pytest.mark.parametrize(("band", "flips"), [(0.0, 1), (0.019, 1), (0.021, 0)])
def test_a_tile_within_the_band_of_the_threshold_flips_nothing(demo, band, flips):
    """The second tile's score is 0.4: closer to the threshold than the band, the verdict is indeterminate."""
    other = REFERENCE.copy()
    other[1] = [0.5, 0.5, 0]
    pair = (probabilities_and_depth(each) for each in (REFERENCE, other))
    assert differences(three_classes(demo, 0.42), *pair, band=band).decision_flips == flips


@pytest.mark.parametrize("rows", [2, 0])
def test_outputs_of_other_tiles_cannot_be_compared(demo, rows):
    pair = (probabilities_and_depth(each) for each in (REFERENCE, REFERENCE[:rows]))
    with pytest.raises(ValueError, match="cannot be compared"):
        differences(three_classes(demo), *pair)
