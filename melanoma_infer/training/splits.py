"""Which tiles are for training, for validation and for the final test: by patient, never by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.labels import LabelledTile
from melanoma_infer.errors import DatasetError, UsageError
from melanoma_infer.training.labels import Labels

TEST_PARTS = 5
"""One part of five is for the final test: the paper's 80/20."""
FOLDS = 5
"""The paper's 5-fold cross-validation."""

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Division:
    """Rows of tiles.csv, from 0, in rising order."""

    train: Rows
    validation: Rows
    test: Rows


def divide(tiles: Sequence[LabelledTile], labels: Labels, *, seed: int, folds: int = 1) -> list[Division]:
    """The division that the data set states, or one for each fold.

    Without stated splits a fifth of the patients is for the test, and the rest is divided into FOLDS parts, of which
    each fold validates on another; classes are spread evenly (scikit-learn's StratifiedGroupKFold).

    Args:
        tiles: with their splits and cases.
        labels: of the tiles.
        seed: of the division.
        folds: how many of the FOLDS divisions to return.

    Raises:
        UsageError: several folds are asked for, and the data set has splits of its own.
        DatasetError: there are too few patients to divide.
    """
    if any(tile.split is not None for tile in tiles):
        if folds > 1:
            raise UsageError(
                "tiles.csv states splits, and --folds makes others. Leave out --folds, or blank the column split."
            )
        stated = np.array([tile.split or "" for tile in tiles])
        return [Division(*(np.flatnonzero(stated == name) for name in ("train", "validation", "test")))]
    cases = np.array([tile.case_id for tile in tiles])
    if (patients := len(set(cases))) < 2 * FOLDS:
        raise DatasetError(
            f"tiles.csv has no splits, and {patients} patients are too few to divide: at least {2 * FOLDS} are needed. "
            "Fill in the column split."
        )
    kinds = labels.allowed @ (1 << np.arange(labels.allowed.shape[1]))
    every = np.arange(len(tiles))
    rest, test = _parts(every, kinds, cases, TEST_PARTS, seed)[0]
    inner = _parts(rest, kinds, cases, FOLDS, seed)[:folds]
    return [Division(train, validation, test) for train, validation in inner]


def _parts(rows: Rows, kinds: Rows, cases: NDArray[np.str_], parts: int, seed: int) -> list[tuple[Rows, Rows]]:
    """For each part, the rows outside it and the rows in it."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is rarer than there are parts: `require_classes` says it better
        made = list(folds.split(rows, kinds[rows], cases[rows]))
    return [(rows[outside], rows[inside]) for outside, inside in made]


def require_classes(division: Division, labels: Labels, card: ModelCard) -> list[str]:
    """Classes that are missing where the training can go on without them, in sentences for the user.

    Raises:
        DatasetError: training or validation has no malignant tile or no other, or training lacks a class.
    """
    doubts = []
    for name, rows in (("train", division.train), ("validation", division.validation)):
        malignant = labels.malignant(card)[rows]
        if not len(rows) or malignant.all() or not malignant.any():
            raise DatasetError(
                f"The split {name} has {int(malignant.sum())} malignant and {int((~malignant).sum())} other tiles: it "
                "needs both. Add tiles, or fill in the column split so that both are in it."
            )
        for class_name, count in zip(card.classes, labels.allowed[rows].sum(0), strict=True):
            if not count and name == "train":
                raise DatasetError(
                    f"The split train has no tile of the class {class_name}: the model could never learn it. Add "
                    "tiles of it, or remove it from the card."
                )
            if not count:
                doubts.append(f"The split {name} has no tile of the class {class_name}: its figures do not show it.")
    return doubts
