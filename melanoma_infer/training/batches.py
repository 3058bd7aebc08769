"""Tiles on disk → batches, read and varied by threads while the network computes.

Order and variation come from (seed, epoch, tile) alone, so a run that was stopped goes on with the same batches.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import DatasetError
from melanoma_infer.training.augment import Varied, varied
from melanoma_infer.training.labels import Labels, with_some_unknown
from melanoma_infer.training.settings import TrainingSettings

THREADS = 2
"""That read and vary tiles; Pillow and NumPy release Python's lock for most of it."""
AHEAD = 2
"""Batches that are read ahead."""


class Batch(NamedTuple):
    """B tiles with their labels."""

    tiles: Tensor
    """uint8 (B, tile_px, tile_px, 3)."""
    allowed: Tensor
    """bool (B, K)."""
    depth_mm: Tensor
    """float32 (B,), NaN where it does not count."""
    patients: Tensor
    """float32 (B, P)."""


@dataclass(frozen=True)
class TileFiles:
    """The tiles of a data set, their pictures and their labels."""

    folder: Path
    names: tuple[str, ...]
    """Paths relative to the folder."""
    labels: Labels
    card: ModelCard

    def picture(self, row: int) -> Image.Image:
        """The picture of a tile, decoded.

        Raises:
            DatasetError: it is damaged.
        """
        name = self.names[row]
        try:
            with Image.open(self.folder / name) as image:
                image.load()
                return image
        except (OSError, ValueError, SyntaxError) as error:
            raise DatasetError(
                f"tiles.csv, the row of {name}: the picture is damaged. Replace the file, or remove the row."
            ) from error

    def pixels(self, rows: Sequence[int] | NDArray[np.intp]) -> NDArray[np.uint8]:
        """The pixels of tiles, uint8 (N, tile_px, tile_px, 3)."""
        return np.stack([np.asarray(self.picture(int(row))) for row in rows])


@dataclass(frozen=True)
class Batches:
    """The batches of one pass over some tiles."""

    files: TileFiles
    order: Sequence[NDArray[np.intp]]
    """The rows of each batch."""
    settings: TrainingSettings
    epoch: int | None = None
    """None: the tiles as they are, and every patient value known that is stated."""

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        waiting: deque[list[Future[tuple[Varied, NDArray[np.float32]]]]] = deque()
        with ThreadPoolExecutor(THREADS, "mminfer-tiles") as pool:
            try:
                for number, rows in enumerate(self.order):
                    waiting.append([pool.submit(self._example, int(row)) for row in rows])
                    if len(waiting) > AHEAD:
                        yield self._batch(number - AHEAD, waiting.popleft())
                for number in range(len(self.order) - len(waiting), len(self.order)):
                    yield self._batch(number, waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _example(self, row: int) -> tuple[Varied, NDArray[np.float32]]:
        picture, patient = self.files.picture(row), self.files.labels.patients[row]
        if self.epoch is None:
            return Varied(np.asarray(picture), 1.0), patient
        tile = zlib.crc32(self.files.names[row].encode())
        rng = np.random.default_rng([self.settings.seed, self.epoch, tile])
        patient = with_some_unknown(patient, self.files.card.patient_fields, rng, self.settings.patient_dropout)
        if not self.settings.augment:
            return Varied(np.asarray(picture), 1.0), patient
        return varied(picture, rng, self.settings), patient

    def _batch(self, number: int, examples: list[Future[tuple[Varied, NDArray[np.float32]]]]) -> Batch:
        rows, made = self.order[number], [each.result() for each in examples]
        factors = np.array([tile.depth_factor for tile, _ in made], np.float32)
        return Batch(
            torch.from_numpy(np.stack([tile.pixels for tile, _ in made])),
            torch.from_numpy(self.files.labels.allowed[rows]),
            torch.from_numpy(self.files.labels.depth_mm[rows] * factors),
            torch.from_numpy(np.stack([patient for _, patient in made])),
        )


def training_order(
    rows: NDArray[np.intp], settings: TrainingSettings, epoch: int, *, rank: int = 0, ranks: int = 1
) -> list[NDArray[np.intp]]:
    """The batches of an epoch in a random order, those of one GPU of several.

    Tiles that do not fill a last batch are left out of this epoch, and others of the next: a batch of few tiles would
    disturb the statistics of batch normalisation. Fewer tiles than one batch are one batch.
    """
    shuffled = rows[np.random.default_rng([settings.seed, epoch]).permutation(len(rows))]
    size = min(settings.batch, len(rows) // ranks)
    steps = len(rows) // (size * ranks)
    parts = shuffled[: steps * size * ranks].reshape(steps, ranks, size)
    return list(parts[:, rank])


def plain_order(rows: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """The rows in their order, `size` a batch."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
