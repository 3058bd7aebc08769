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
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melanoma_infer.model.depth import AVERAGE_PX
from melanoma_infer.training.augment import STILL, Move, Varied, varied
from melanoma_infer.training.labels import with_some_unknown
from melanoma_infer.training.settings import TrainingSettings
from melanoma_infer.training.tile_files import TileFiles

_Example = tuple[Varied, NDArray[np.float32], NDArray[np.float32]]
"""A tile, its patient, and the share of each place that shows a lesion."""
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
    shares: Tensor
    """float32 (B, h, w), the share of each place of the network's maps that shows a lesion, NaN where it is not known;
    (B, 0, 0) if no map is trained."""
    averages: Tensor
    """uint8 (D, tile_px / 4, tile_px / 4, 3): further tiles for the depth module alone, averaged as it does."""
    averages_mm: Tensor
    """float32 (D,), their depths, NaN where it does not count."""


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
            return Varied(np.asarray(picture)), patient, self._shares(row, STILL)
        rng = self._generator(row)
        patient = with_some_unknown(patient, self.files.card.patient_fields, rng, self.settings.patient_dropout)
        made = varied(picture, rng, self.settings) if self.settings.augment else Varied(np.asarray(picture))
        return made, patient, self._shares(row, made.move)

    def _shares(self, row: int, move: Move) -> NDArray[np.float32]:
        if not self.settings.map_weight:
            return np.empty((0, 0), np.float32)
        return self.files.shares(row, move)

    def _averaged(self, row: int, number: int) -> Varied:
        """A varied average; a tile that comes twice in an epoch is varied in two ways."""
        average = self.files.average(row)
        if not self.settings.augment:
            return Varied(np.asarray(average))
        return varied(average, self._generator(row, number + 1), self.settings)

    def _generator(self, row: int, *more: int) -> np.random.Generator:
        tile = zlib.crc32(self.files.names[row].encode())
        return np.random.default_rng([self.settings.seed, self.epoch or 0, tile, *more])

    def _batch(self, number: int, examples: list[Future[_Example]], alone: list[Future[Varied]]) -> Batch:
        rows, made = self.order[number], [each.result() for each in examples]
        factors = np.array([tile.move.depth_factor for tile, _, _ in made], np.float32)
        averages, side = [each.result() for each in alone], self.files.card.tile_px // AVERAGE_PX
        pixels = [each.pixels for each in averages]
        known_mm = self.files.labels.depth_mm[self.measured[number]] if self.measured else np.empty(0, np.float32)
        return Batch(
            torch.from_numpy(np.stack([tile.pixels for tile, _, _ in made])),
            torch.from_numpy(self.files.labels.allowed[rows]),
            torch.from_numpy(self.files.labels.depth_mm[rows] * factors),
            torch.from_numpy(np.stack([patient for _, patient, _ in made])),
            torch.from_numpy(np.stack([shares for _, _, shares in made])),
            torch.from_numpy(np.stack(pixels) if pixels else np.empty((0, side, side, 3), np.uint8)),
            torch.from_numpy(known_mm * np.array([each.move.depth_factor for each in averages], np.float32)),
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
