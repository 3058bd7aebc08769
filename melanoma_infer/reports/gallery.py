"""Which tiles a person should look at: those that speak for the result, and those that could speak against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from melanoma_infer.card import ModelCard
from melanoma_infer.result import TileTable

Role = Literal["telling", "hard-negative", "near-cut"]

TELLING = 6
BELOW = 2
NEAR = 2
CHOSEN_MAX = TELLING + BELOW + NEAR
CUT_WITHOUT = 0.5
"""The cut where the card sets none."""

ROLES: dict[Role, str] = {
    "telling": "Most telling",
    "hard-negative": "Highest below the cut",
    "near-cut": "Nearest to the cut",
}
"""What a reader sees."""


@dataclass(frozen=True)
class Choice:
    """A row of the tile table, and why it was chosen."""

    row: int
    role: Role


def choose(tiles: TileTable, card: ModelCard) -> list[Choice]:
    """The six tiles with the highest malignant score, of the rest the two highest below the cut and the two nearest it.

    No tile twice, fewer where there are fewer, equal scores in the table's order. Unreadable tiles are not chosen.
    """
    scores = tiles.probabilities[:, list(card.malignant_columns)].sum(axis=1)
    cut = card.cut.value if card.cut else CUT_WITHOUT
    left = [int(row) for row in np.flatnonzero((tiles.status == "ok") & np.isfinite(scores))]
    chosen: list[Choice] = []

    def take(role: Role, count: int, key: Callable[[int], float], *, below: bool = False) -> None:
        rows = [row for row in left if not below or scores[row] < cut]
        for row in sorted(rows, key=key)[:count]:
            left.remove(row)
            chosen.append(Choice(row, role))

    take("telling", TELLING, lambda row: -scores[row])
    take("hard-negative", BELOW, lambda row: -scores[row], below=True)
    take("near-cut", NEAR, lambda row: abs(scores[row] - cut))
    return chosen
