"""Divisions by patient."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from training_for_tests import NO, SPARED, SPREAD, training_card

from melanoma_infer.datasets.labels import LabelledTile
from melanoma_infer.errors import DatasetError, UsageError
from melanoma_infer.training.labels import labels_of
from melanoma_infer.training.splits import divide, require_classes

CARD = training_card()
TILES = [
    LabelledTile(
        f"{case}-{part}.png", "", f"case{case}", None, None, 5.9, (NO, NO, SPARED, SPREAD)[case % 4], None, None, {},
        None, None,
    )
    for case in range(40)
    for part in range(1 + case % 3)
]  # fmt: skip
LABELS = labels_of(TILES, CARD)


def cases(rows: np.ndarray) -> set[str]:
    return {TILES[row].case_id for row in rows}


def test_without_stated_splits_a_fifth_of_the_patients_is_for_the_test_and_the_rest_has_five_folds():
    folds = divide(TILES, LABELS, seed=3, folds=5)
    assert len(folds) == 5
    for fold in folds:
        parts = [cases(rows) for rows in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, parts)) == 40 == len(set.union(*parts))  # no patient in two parts
        assert len(parts[2]) == pytest.approx(8, abs=1)
        assert len(parts[1]) == pytest.approx(6.4, abs=1.5)
        assert cases(fold.test) == cases(folds[0].test)
    validated = [cases(fold.validation) for fold in folds]
    assert sum(map(len, validated)) == len(set.union(*validated)) == 40 - len(cases(folds[0].test))


def test_the_seed_decides_the_division_and_one_fold_is_the_first_of_five():
    one, again = divide(TILES, LABELS, seed=3)[0], divide(TILES, LABELS, seed=3, folds=5)[0]
    assert np.array_equal(one.validation, again.validation)
    assert not np.array_equal(one.test, divide(TILES, LABELS, seed=4)[0].test)


def test_stated_splits_are_taken_as_they_are():
    stated = [
        dataclasses.replace(tile, split=("train", "validation", "test")[int(tile.case_id[4:]) % 3]) for tile in TILES
    ]
    (division,) = divide(stated, LABELS, seed=0)
    assert cases(division.validation) == {f"case{case}" for case in range(40) if case % 3 == 1}
    assert len(division.train) + len(division.validation) + len(division.test) == len(TILES)
    with pytest.raises(UsageError, match="--folds"):
        divide(stated, LABELS, seed=0, folds=5)


def test_too_few_patients_are_an_error():
    with pytest.raises(DatasetError, match="3 patients are too few"):
        divide(TILES[:6], labels_of(TILES[:6], CARD), seed=0)


def test_a_class_that_is_missing_is_an_error_in_training_and_a_doubt_in_validation():
    division = divide(TILES, LABELS, seed=3)[0]
    assert require_classes(division, LABELS, CARD) == []
    spread = np.flatnonzero(LABELS.allowed[:, 2])
    without = dataclasses.replace(division, validation=np.setdiff1d(division.validation, spread))
    assert require_classes(without, LABELS, CARD) == [
        f"The split validation has no tile of the class {SPREAD}: its figures do not show it."
    ]
    with pytest.raises(DatasetError, match=f"train has no tile of the class {SPREAD}"):
        require_classes(dataclasses.replace(division, train=np.setdiff1d(division.train, spread)), LABELS, CARD)
    benign = np.flatnonzero(LABELS.allowed[:, 0])
    with pytest.raises(DatasetError, match=rf"validation has 0 malignant and {len(benign)} other tiles"):
        require_classes(dataclasses.replace(division, validation=benign), LABELS, CARD)
