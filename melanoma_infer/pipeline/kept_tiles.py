"""The results of a scan's tiles so far, and the pixels of those that the gallery may show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.geometry import RectPx
from melanoma_infer.records import ReadTile, Tile, TileResult
from melanoma_infer.scoring.gallery import CHOSEN_MAX, THRESHOLD_WITHOUT

KEPT = 2 * CHOSEN_MAX
"""Tiles with the highest scores that keep their pixels, and as many nearest to the threshold. Patient values change
scores a little, and a tile may prove to hold too little tissue: twice as many as are shown."""


class KeptTiles:
    """Results by tile. Any thread may read while one stores.

    Args:
        card: says which classes are malignant, and the threshold.
        on_tile: called after each tile is stored; what it raises ends the session.
    """

    def __init__(self, card: ModelCard, on_tile: Callable[[TileResult], None] | None) -> None:
        self._columns = list(card.malignant_columns)
        self._threshold = card.threshold.value if card.threshold else THRESHOLD_WITHOUT
        self._on_tile = on_tile
        self.results: dict[RectPx, TileResult] = {}
        self._highest: dict[RectPx, tuple[float, NDArray[np.uint8]]] = {}
        self._nearest: dict[RectPx, tuple[float, NDArray[np.uint8]]] = {}

    def store(self, result: TileResult, read: ReadTile) -> None:
        """Store a tile's result, and its pixels as long as it may be shown."""
        rect = result.tile.rect_l0
        self.results[rect] = result
        if result.outputs is not None and read.pixels is not None:
            score = float(result.outputs["probabilities"][self._columns].sum())
            for kept, rank in ((self._highest, score), (self._nearest, -abs(score - self._threshold))):
                kept[rect] = (rank, read.pixels)
                if len(kept) > KEPT:
                    del kept[min(kept, key=lambda each, of=kept: of[each][0])]  # type: ignore[misc]
        if self._on_tile is not None:
            self._on_tile(result)

    def read(self, tiles: Sequence[Tile]) -> list[ReadTile]:
        """Tiles with their pixels; None in their place if they were not kept."""
        kept = [self._highest.get(tile.rect_l0) or self._nearest.get(tile.rect_l0) for tile in tiles]
        return [ReadTile(tile, each[1] if each else None) for tile, each in zip(tiles, kept, strict=True)]
