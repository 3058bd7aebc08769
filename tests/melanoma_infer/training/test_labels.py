"""What the losses are told of each tile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from training_for_tests import NO, SPARED, SPREAD, training_card

from melanoma_infer.datasets.labels import MALIGNANT, LabelledTile
from melanoma_infer.training.labels import labels_of, with_some_unknown

TILE = LabelledTile("a.png", "", "case", None, None, 5.9, NO, None, None, {}, None, "train")


@pytest.mark.parametrize(
    ("label", "outcome", "classes"),
    [
        (NO, None, (True, False, False)),
        (SPARED, None, (False, True, False)),
        (SPREAD, True, (False, False, True)),
        (MALIGNANT, True, (False, False, True)),
        (MALIGNANT, False, (False, True, False)),
        (MALIGNANT, None, (False, True, True)),
    ],
)
def test_a_class_or_the_outcome_says_which_classes_a_tile_may_have(label, outcome, classes):
    labels = labels_of([dataclasses.replace(TILE, label=label, outcome=outcome)], training_card())
    assert tuple(labels.allowed[0].tolist()) == classes
    assert bool(labels.malignant(training_card())[0]) == (label != NO)


def test_without_an_outcome_in_the_card_malignant_may_be_any_malignant_class():
    labels = labels_of([dataclasses.replace(TILE, label=MALIGNANT, outcome=True)], training_card(outcome=None))
    assert labels.allowed.tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("mm", "surface", "counts"), [(1.2, True, True), (1.2, False, False), (1.2, None, False), (None, True, False)]
)
def test_a_depth_counts_only_where_surface_and_deepest_cell_are_in_the_tile(mm, surface, counts):
    tile = dataclasses.replace(TILE, label=SPARED, breslow_mm=mm, surface_in_tile=surface)
    depth = labels_of([tile], training_card()).depth_mm
    assert depth.tolist() == pytest.approx([1.2]) if counts else np.isnan(depth).all()


def test_patient_values_are_those_of_a_manifest():
    tile = dataclasses.replace(TILE, values={"age": "[60:65[", "sex": "F"})
    # under_50, 50_and_over, unknown, female, male, unknown.
    assert labels_of([tile], training_card()).patients.tolist() == [[0, 1, 0, 1, 0, 0]]


def test_a_share_of_the_patients_is_unknown_and_of_the_others_single_values():
    """With 0.25: 1/4 + 3/4 · 1/16 have neither value, and 1/4 + 3/4 · 1/4 have no age."""
    fields, known = training_card().patient_fields, np.array([0, 1, 0, 1, 0, 0], np.float32)
    rng = np.random.default_rng(0)
    drawn = np.stack([with_some_unknown(known, fields, rng, 0.25) for _ in range(4000)])
    assert (drawn.reshape(-1, 2, 3).sum(2) == 1).all()
    assert (drawn[:, [2, 5]].all(1)).mean() == pytest.approx(0.25 + 0.75 / 16, abs=0.02)
    assert drawn[:, 2].mean() == pytest.approx(0.25 + 0.75 * 0.25, abs=0.02)
    assert np.array_equal(with_some_unknown(known, fields, rng, 0.0), known)
