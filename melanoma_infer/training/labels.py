"""Rows of a data set → what the losses need: the classes that a tile may have, its depth, its patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard, PatientField
from melanoma_infer.datasets.labels import LabelledTile
from melanoma_infer.patients.patient import lenient_patient, one_hot


@dataclass(frozen=True)
class Labels:
    """The labels of N tiles, K classes, P patient columns."""

    allowed: NDArray[np.bool_]
    """(N, K): the class of a tile; all malignant classes where only that is known."""
    depth_mm: NDArray[np.float32]
    """(N,): NaN unless the thickness is known, and the surface and the deepest cell are in the tile."""
    patients: NDArray[np.float32]
    """(N, P), one-hot."""

    def malignant(self, card: ModelCard) -> NDArray[np.bool_]:
        """Whether each tile is malignant, (N,)."""
        return self._any(card.malignant_columns)

    def lesion(self, card: ModelCard) -> NDArray[np.bool_]:
        """Whether each tile has a lesion, benign or malignant, (N,)."""
        return self._any(card.lesion_columns)

    def outcome(self, card: ModelCard) -> NDArray[np.bool_]:
        """Whether each tile may be of a class in which the outcome occurred, (N,)."""
        return self._any(card.outcome_columns)

    def _any(self, columns: Sequence[int]) -> NDArray[np.bool_]:
        return np.asarray(self.allowed[:, list(columns)].any(1))

    def of(self, rows: NDArray[np.intp]) -> Labels:
        """The labels of these tiles."""
        return Labels(self.allowed[rows], self.depth_mm[rows], self.patients[rows])


def labels_of(tiles: Sequence[LabelledTile], card: ModelCard) -> Labels:
    """The labels of these tiles, which were compared with the card when the data set was read."""
    allowed = np.array([[name in _classes(tile, card) for name in card.classes] for tile in tiles], np.bool_)
    depths = [tile.breslow_mm if tile.breslow_mm is not None and tile.surface_in_tile else np.nan for tile in tiles]
    patients = [one_hot(lenient_patient(tile.values, card.patient_fields)[0], card.patient_fields) for tile in tiles]
    return Labels(
        allowed.reshape(len(tiles), len(card.classes)),
        np.array(depths, np.float32),
        np.array(patients, np.float32).reshape(len(tiles), card.patient_columns),
    )


def _classes(tile: LabelledTile, card: ModelCard) -> tuple[str, ...]:
    """The classes that the tile may have: one, or some of the malignant ones."""
    if tile.label in card.classes:
        return (tile.label,)
    if tile.outcome is None or card.outcome is None:
        return card.malignant
    occurred = card.outcome.classes
    return occurred if tile.outcome else tuple(name for name in card.malignant if name not in occurred)


def class_weights(allowed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The weight (K,) of each class, so that all classes together count the same: N / (K · n_k), 0 for n_k = 0.

    A tile that may have several classes counts for each of them in equal parts; its own weight is their mean.
    """
    counts = (allowed / allowed.sum(1, keepdims=True)).sum(0)
    seen = counts > 0
    weights = np.zeros(len(counts))
    weights[seen] = len(allowed) / (seen.sum() * counts[seen])
    return weights.astype(np.float32)


def with_some_unknown(
    patient: NDArray[np.float32], fields: Sequence[PatientField], rng: np.random.Generator, share: float
) -> NDArray[np.float32]:
    """A one-hot patient (P,) in which all values are unknown with probability `share`, and else each with that one."""
    every, each = rng.random() < share, rng.random(len(fields)) < share
    dropped, start = patient.copy(), 0
    for number, field in enumerate(fields):
        if every or each[number]:
            dropped[start : start + field.columns] = 0
            dropped[start + field.columns - 1] = 1
        start += field.columns
    return dropped
