"""The label of a tile: shares of known shapes, and the rule at its limits."""

import numpy as np
import pytest
from datasets_for_tests import lesion_card, square

from melanoma_infer.datasets.annotations import Area
from melanoma_infer.datasets.area_rule import LabelledArea, samples_inside, shown_in
from melanoma_infer.geometry import RectPx

CARD = lesion_card()
TILE = RectPx(1000, 2000, 512, 512)


def area(label, *rings):
    return LabelledArea(Area(str(label), tuple(np.array(ring, np.float64) for ring in rings), "test"), label)


def inside(*rings):
    return float(samples_inside([np.array(ring, np.float64) for ring in rings], TILE).mean())


def test_shares_of_rectangles_on_whole_samples_are_exact():
    assert inside(square(1000, 2000, 256, 512)) == 0.5
    assert inside(square(0, 0, 4000)) == 1.0
    assert inside(square(1128, 2128, 256), square(1192, 2192, 128)) == 0.25 - 0.0625
    assert inside(square(0, 0, 100)) == 0.0
    assert inside(square(1000 - 256, 2000 - 256, 512)) == 0.25


def test_shares_of_slanted_and_round_shapes_are_those_of_geometry():
    triangle = [[1000, 2000], [1512, 2000], [1000, 2512]]
    assert inside(triangle) == pytest.approx(0.5, abs=0.002)
    turn = np.linspace(0, 2 * np.pi, 2000)
    disc = np.column_stack([1256 + 200 * np.cos(turn), 2256 + 200 * np.sin(turn)])
    assert inside(disc) == pytest.approx(np.pi * 200**2 / 512**2, abs=3e-4)


def test_a_concave_shape_whose_box_covers_the_tile_may_not_be_in_it():
    """A U around the tile."""
    u = [[900, 1900], [990, 1900], [990, 2600], [1600, 2600], [1600, 1900], [1700, 1900], [1700, 2700], [900, 2700]]
    shown = shown_in(TILE, [area("melanoma", u)], CARD)
    assert (shown.label, shown.ambiguous, shown.touched) == (None, False, False)


@pytest.mark.parametrize(
    ("side", "label"),
    [(112, None), (116, "melanoma")],
)
def test_five_percent_of_the_tile_give_the_label(side, label):
    """112² / 512² = 4.8 %; 116² / 512² = 5.1 %. Each is a small corner of a large area."""
    large = area("melanoma", square(TILE.x - 5000 + side, TILE.y - 5000 + side, 5000))
    shown = shown_in(TILE, [large], CARD)
    assert (shown.label, shown.ambiguous, shown.touched) == (label, label is None, True)


@pytest.mark.parametrize(("left", "label"), [(980, "melanoma"), (978, None)])
def test_half_of_a_small_area_gives_the_label(left, label):
    """40 × 40 px are 0.6 % of the tile: 20 of its 40 columns are in the tile, or 18."""
    shown = shown_in(TILE, [area("melanoma", square(left, 2100, 40))], CARD)
    assert (shown.label, shown.ambiguous) == (label, label is None)


def test_an_area_between_two_samples_counts_if_it_is_in_the_tile():
    assert shown_in(TILE, [area("melanoma", square(1100.2, 2100.2, 0.5))], CARD).label == "melanoma"


def test_shares_of_one_label_add_up_without_counting_twice():
    strip = area("melanoma", square(0, 2000, 4000, 20))  # 3.9 %
    below = area("melanoma", square(0, 2300, 4000, 20))
    assert shown_in(TILE, [strip], CARD).ambiguous
    assert shown_in(TILE, [strip, strip], CARD).ambiguous
    assert shown_in(TILE, [strip, below], CARD).label == "melanoma"


def test_the_highest_label_prevails_and_too_little_of_it_is_ambiguous():
    whole = area("naevus", square(0, 0, 4000))
    corner = area("melanoma", square(1380, 2380, 4000))
    sliver = area("melanoma", square(1500, 2500, 4000))
    assert shown_in(TILE, [whole], CARD).label == "naevus"
    assert shown_in(TILE, [corner, whole], CARD).label == "melanoma"
    shown = shown_in(TILE, [whole, sliver], CARD)
    assert (shown.label, shown.ambiguous) == (None, True)
    assert shown_in(TILE, [corner, area("naevus", square(1500, 2500, 4000))], CARD).label == "melanoma"


def test_the_order_of_labels_is_no_lesion_benign_malignant_whatever_the_card_s_order():
    card = lesion_card(classes=["melanoma", "melanoma_in_situ", "naevus", "normal"], no_lesion="normal")
    layers = {name: area(name, square(0, 0, 4000)) for name in (*card.classes, "malignant")}
    assert shown_in(TILE, [layers["normal"], layers["naevus"]], card).label == "naevus"
    assert shown_in(TILE, [layers["melanoma"], layers["naevus"]], card).label == "melanoma"
    assert shown_in(TILE, [layers["melanoma_in_situ"], layers["melanoma"]], card).label == "melanoma_in_situ"
    assert shown_in(TILE, [layers["malignant"], layers["melanoma"]], card).label == "malignant"


def test_an_area_without_a_label_only_keeps_the_background_away():
    ignored = area(None, square(1100, 2100, 300))
    shown = shown_in(TILE, [ignored], CARD)
    assert (shown.label, shown.ambiguous, shown.touched) == (None, False, True)
    assert shown_in(TILE, [ignored, area("naevus", square(0, 0, 4000))], CARD).label == "naevus"
