"""The tiles that a person should look at: those that support the result, and those that might contradict it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from melanoma_infer.card import ModelCard
from melanoma_infer.records import TileTable

Role = Literal["highest-scoring", "hard-negative", "near-threshold"]

HIGHEST = 6
BELOW = 2
NEAR = 2
CHOSEN_MAX = HIGHEST + BELOW + NEAR
THRESHOLD_WITHOUT = 0.5
"""The threshold to use if the card sets none."""

ROLES: dict[Role, str] = {
    "highest-scoring": "Highest-scoring",
    "hard-negative": "Highest below the threshold",
    "near-threshold": "Nearest to the threshold",
}
"""The words that a reader sees."""


@dataclass(frozen=True)
class Choice:
    """A row of the tile table, and why it was chosen."""

    row: int
    role: Role


def choose(tiles: TileTable, card: ModelCard) -> list[Choice]:
    """The six tiles with the highest malignant score, then two just below the threshold and two nearest to it.

    Padded tiles show little, and the model was not made for them: they are among the highest-scoring only if there are
    no others, and come last elsewhere. No tile is chosen twice, and no unreadable one; equal scores keep the table's
    order.
    """
    scores = tiles.probabilities[:, list(card.malignant_columns)].sum(axis=1)
    threshold = card.threshold.value if card.threshold else THRESHOLD_WITHOUT
    padded = tiles.padded_fraction > 0
    left = [int(row) for row in np.flatnonzero((tiles.status == "ok") & np.isfinite(scores))]
    whole = [row for row in left if not padded[row]] or left
    chosen: list[Choice] = []

    def take(role: Role, count: int, rows: list[int], key: Callable[[int], float]) -> None:
        for row in sorted(rows, key=lambda row: (padded[row], key(row)))[:count]:
            left.remove(row)
            chosen.append(Choice(row, role))

    take("highest-scoring", HIGHEST, whole, lambda row: -scores[row])
    take("hard-negative", BELOW, [row for row in left if scores[row] < threshold], lambda row: -scores[row])
    take("near-threshold", NEAR, left, lambda row: abs(scores[row] - threshold))
    return chosen


def padded_above(tiles: TileTable, card: ModelCard, chosen: Sequence[int]) -> int:
    """How many padded tiles score higher than one of these rows and are not among them."""
    scores = tiles.probabilities[:, list(card.malignant_columns)].sum(axis=1)
    others = (tiles.status == "ok") & (tiles.padded_fraction > 0)
    others[list(chosen)] = False
    return int((scores[others] > scores[list(chosen)].min(initial=np.inf)).sum())
