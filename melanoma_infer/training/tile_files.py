"""The pictures of a data set's tiles, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.table import Dataset
from melanoma_infer.errors import DatasetError
from melanoma_infer.model.depth import AVERAGE_PX
from melanoma_infer.training.augment import STILL, Move
from melanoma_infer.training.labels import Labels, labels_of

PLACE_PX = 32
"""Side of a place of the backbone's map, in pixels of the tile."""
MASK_PX = 8
"""Side of the blocks that masks are averaged over before they are moved."""
KEPT = 20_000
"""Averages that are kept: 1.3 GB of tiles of 512 px, as Pillow has four bytes a pixel."""


@dataclass(frozen=True)
class TileFiles:
    """The tiles of a data set, their pictures and their labels."""

    folder: Path
    names: tuple[str, ...]
    """Paths relative to the folder."""
    labels: Labels
    masks: tuple[str | None, ...]
    """Paths of the tiles' masks; None for a tile that has none."""
    card: ModelCard
    _averages: dict[int, Image.Image] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, data: Dataset, card: ModelCard) -> Self:
        """Those of a data set."""
        tiles = data.tiles
        names, masks = tuple(tile.tile for tile in tiles), tuple(tile.mask for tile in tiles)
        return cls(data.folder, names, labels_of(tiles, card), masks, card)

    def picture(self, row: int) -> Image.Image:
        """The picture of a tile, decoded.

        Raises:
            DatasetError: it is damaged.
        """
        return self._decoded(self.names[row])

    def _decoded(self, name: str) -> Image.Image:
        try:
            with Image.open(self.folder / name) as image:
                image.load()
                return image
        except (OSError, ValueError, SyntaxError) as error:
            raise DatasetError(
                f"tiles.csv, the row with {name}: the picture is damaged. Replace the file, or remove the row."
            ) from error

    def pixels(self, rows: Sequence[int] | NDArray[np.intp]) -> NDArray[np.uint8]:
        """The pixels of tiles, uint8 (N, tile_px, tile_px, 3)."""
        return np.stack([np.asarray(self.picture(int(row))) for row in rows])

    def shares(self, row: int, move: Move = STILL) -> NDArray[np.float32]:
        """The share of each place of the network's maps that shows a lesion, (h, w), NaN where it is not known.

        Raises:
            DatasetError: the mask is damaged.
        """
        lesion, side = self._lesion(row), self.card.tile_px // PLACE_PX
        if lesion is None:
            return np.full((side, side), np.nan, np.float32)
        return np.asarray(move.of(lesion).reduce(PLACE_PX // MASK_PX), np.float32) / np.float32(255)

    def _lesion(self, row: int) -> Image.Image | None:
        """Where a tile shows a lesion, at an eighth of its size, white for yes; None if that is not known."""
        name = self.masks[row]
        if name is not None:
            return self._decoded(name).convert("L").reduce(MASK_PX)
        if self.labels.lesion(self.card)[row]:
            return None
        return Image.new("L", (self.card.tile_px // MASK_PX,) * 2)

    def average(self, row: int) -> Image.Image:
        """The picture of a tile, averaged as the depth module does; up to KEPT of them are decoded only once.

        Raises:
            DatasetError: it is damaged.
        """
        average = self._averages.get(row)
        if average is None:
            average = self.picture(row).reduce(AVERAGE_PX)
            if len(self._averages) < KEPT:
                self._averages[row] = average
        return average
