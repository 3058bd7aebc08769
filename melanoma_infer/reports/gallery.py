"""Which tiles the report shows: those that support the result, and those that might contradict it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from melanoma_infer.card import ModelCard
from melanoma_infer.result import TileTable

Role = Literal["highest-scoring", "hard-negative", "near-threshold"]

HIGHEST = 6
BELOW = 2
NEAR = 2
CHOSEN_MAX = HIGHEST + BELOW + NEAR
THRESHOLD_WITHOUT = 0.5
"""Used when the card sets no threshold."""

ROLES: dict[Role, str] = {
    "highest-scoring": "Highest-scoring",
    "hard-negative": "Highest below the threshold",
    "near-threshold": "Nearest to the threshold",
}
"""The titles in the report."""


@dataclass(frozen=True)
class Choice:
    """A row of the tile table, and why it was chosen."""

    row: int
    role: Role


def choose(tiles: TileTable, card: ModelCard) -> list[Choice]:
    """The six tiles with the highest malignant score, then two just below the threshold and two nearest to it.

    No tile is chosen twice, unreadable tiles never, and equal scores keep the table's order. A small table gives fewer.
    """
    scores = tiles.probabilities[:, list(card.malignant_columns)].sum(axis=1)
    threshold = card.threshold.value if card.threshold else THRESHOLD_WITHOUT
    left = [int(row) for row in np.flatnonzero((tiles.status == "ok") & np.isfinite(scores))]
    chosen: list[Choice] = []

    def take(role: Role, count: int, key: Callable[[int], float], *, below: bool = False) -> None:
        rows = [row for row in left if not below or scores[row] < threshold]
        for row in sorted(rows, key=key)[:count]:
            left.remove(row)
            chosen.append(Choice(row, role))

    take("highest-scoring", HIGHEST, lambda row: -scores[row])
    take("hard-negative", BELOW, lambda row: -scores[row], below=True)
    take("near-threshold", NEAR, lambda row: abs(scores[row] - threshold))
    return chosen
