"""What a data set says about a tile and about a slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from melanoma_infer.card import ModelCard

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
MALIGNANT = "malignant"
"""The label of a tile of which only the outcome says which malignant class it is; without an outcome, none of them."""


@dataclass(frozen=True)
class LabelledTile:
    """One tile of a data set: where its picture is, from whom it is, and what it shows."""

    tile: str
    """Path of its PNG, relative to the data set's folder, with forward slashes."""
    slide: str
    """Name of the slide that it was cut from; empty for a ready-made tile."""
    case_id: str
    """The patient."""
    x_l0: int | None
    """Its left edge in level-0 pixels of the slide; None for a tile that was not cut from one."""
    y_l0: int | None
    """Its upper edge, likewise."""
    um_per_px: float
    """Scale of its pixels."""
    label: str
    """A class of the card, or MALIGNANT."""
    breslow_mm: float | None
    """Breslow thickness; None if it is not known."""
    surface_in_tile: bool | None
    """Whether the deepest tumour cell and the surface above it are both in the tile; None if it is not known."""
    values: Mapping[str, str]
    """The patient's values by field of the card, as a manifest has them."""
    outcome: bool | None
    """Whether the card's outcome occurred; None if it is not known."""
    split: Split | None
    """What the tile is for; None if the training decides."""
    mask: str | None = None
    """Path of a picture of its size, white where a lesion is; None if that is not known, or if it shows none."""


@dataclass(frozen=True)
class LabelledSlide:
    """A whole slide and its highest class."""

    slide: str
    """Its name."""
    path: str
    """Absolute, or relative to the data set's folder."""
    case_id: str
    """The patient."""
    label: str
    """A class of the card, or MALIGNANT."""
    split: Split | None
    """What the slide is for; None if the training decides."""


def known_labels(card: ModelCard) -> tuple[str, ...]:
    """What a tile may be labelled: the card's classes, and MALIGNANT."""
    return tuple(dict.fromkeys((*card.classes, MALIGNANT)))


def no_lesion(card: ModelCard) -> str:
    """The class of tissue without a lesion."""
    return card.no_lesion or next(name for name in card.classes if name not in card.malignant)


def is_malignant(label: str, card: ModelCard) -> bool:
    """Whether a label is a malignant class, or MALIGNANT."""
    return label == MALIGNANT or label in card.malignant


def rank(label: str, card: ModelCard) -> tuple[int, int]:
    """How high a label is: no lesion, then benign classes, then malignant ones, each group in the card's order."""
    group = 2 if is_malignant(label, card) else 0 if label == no_lesion(card) else 1
    return group, known_labels(card).index(label)
