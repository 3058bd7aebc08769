"""Tiles on disk → batches, read and varied by threads while the network computes.

Order and variation come from (seed, epoch, tile) alone, so a run that was stopped goes on with the same batches.
"""

from __future__ import annotations

import math
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
from melanoma_infer.model.depth import AVERAGE_PX
from melanoma_infer.training.augment import Varied, varied
from melanoma_infer.training.labels import Labels, with_some_unknown
from melanoma_infer.training.settings import TrainingSettings

_Example = tuple[Varied, NDArray[np.float32]]
"""A tile and its patient."""
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
    averages: Tensor
    """uint8 (D, tile_px / 8, tile_px / 8, 3): further tiles for the depth module alone, averaged as it does."""
    averages_mm: Tensor
    """float32 (D,), their depths, NaN where it does not count."""


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
    measured: Sequence[NDArray[np.intp]] = ()
    """For each batch, the rows of tiles for the depth module alone; empty for none."""

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        waiting: deque[tuple[list[Future[_Example]], list[Future[Varied]]]] = deque()
        with ThreadPoolExecutor(THREADS, "mminfer-tiles") as pool:
            try:
                for number, rows in enumerate(self.order):
                    alone = self.measured[number] if self.measured else ()
                    waiting.append((
                        [pool.submit(self._example, int(row)) for row in rows],
                        [pool.submit(self._averaged, int(row), number) for row in alone],
                    ))  # fmt: skip
                    if len(waiting) > AHEAD:
                        yield self._batch(number - AHEAD, *waiting.popleft())
                for number in range(len(self.order) - len(waiting), len(self.order)):
                    yield self._batch(number, *waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _example(self, row: int) -> _Example:
        picture, patient = self.files.picture(row), self.files.labels.patients[row]
        if self.epoch is None:
            return Varied(np.asarray(picture), 1.0), patient
        rng = self._generator(row)
        patient = with_some_unknown(patient, self.files.card.patient_fields, rng, self.settings.patient_dropout)
        if not self.settings.augment:
            return Varied(np.asarray(picture), 1.0), patient
        return varied(picture, rng, self.settings), patient

    def _averaged(self, row: int, number: int) -> Varied:
        """A varied tile, averaged; a tile that comes twice in an epoch is varied in two ways."""
        picture = self.files.picture(row)
        if self.settings.augment:
            pixels, factor = varied(picture, self._generator(row, number + 1), self.settings)
            picture = Image.fromarray(pixels)
        else:
            factor = 1.0
        return Varied(np.asarray(picture.reduce(AVERAGE_PX)), factor)

    def _generator(self, row: int, *more: int) -> np.random.Generator:
        tile = zlib.crc32(self.files.names[row].encode())
        return np.random.default_rng([self.settings.seed, self.epoch or 0, tile, *more])

    def _batch(self, number: int, examples: list[Future[_Example]], alone: list[Future[Varied]]) -> Batch:
        rows, made = self.order[number], [each.result() for each in examples]
        factors = np.array([tile.depth_factor for tile, _ in made], np.float32)
        averages, side = [each.result() for each in alone], self.files.card.tile_px // AVERAGE_PX
        pixels = [each.pixels for each in averages]
        known_mm = self.files.labels.depth_mm[self.measured[number]] if self.measured else np.empty(0, np.float32)
        return Batch(
            torch.from_numpy(np.stack([tile.pixels for tile, _ in made])),
            torch.from_numpy(self.files.labels.allowed[rows]),
            torch.from_numpy(self.files.labels.depth_mm[rows] * factors),
            torch.from_numpy(np.stack([patient for _, patient in made])),
            torch.from_numpy(np.stack(pixels) if pixels else np.empty((0, side, side, 3), np.uint8)),
            torch.from_numpy(known_mm * np.array([each.depth_factor for each in averages], np.float32)),
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


def depth_order(
    rows: NDArray[np.intp], settings: TrainingSettings, epoch: int, steps: int, *, rank: int = 0, ranks: int = 1
) -> list[NDArray[np.intp]]:
    """For each step of an epoch, `depth_tiles` of these rows in a random order, all of them before any comes again."""
    rng, needed = np.random.default_rng([settings.seed, epoch, 1]), steps * ranks * settings.depth_tiles
    rounds = [rows[rng.permutation(len(rows))] for _ in range(math.ceil(needed / len(rows)))]
    return list(np.concatenate(rounds)[:needed].reshape(steps, ranks, settings.depth_tiles)[:, rank])


def plain_order(rows: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """The rows in their order, `size` a batch."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
