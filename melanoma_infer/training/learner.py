"""The network under PyTorch Lightning: steps, optimizer, batches of each epoch, and the validation's predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor

from melanoma_infer.errors import UsageError
from melanoma_infer.evaluation.figures import auc, depth_errors
from melanoma_infer.training.batches import Batch, Batches, depth_order, plain_order, training_order
from melanoma_infer.training.labels import Labels, class_weights
from melanoma_infer.training.losses import class_loss, depth_loss, map_loss
from melanoma_infer.training.network import Predicted, TrainingNet
from melanoma_infer.training.settings import TrainingSettings
from melanoma_infer.training.splits import Division
from melanoma_infer.training.tile_files import TileFiles


@dataclass(frozen=True)
class Predictions:
    """What the network says about N tiles."""

    probabilities: NDArray[np.float64]
    """(N, K)."""
    depth_mm: NDArray[np.float64] | None
    """(N,)."""


@dataclass(frozen=True)
class EpochFigures:
    """One pass, as history.csv has it."""

    epoch: int
    """From 1."""
    train_loss: float
    train_class_loss: float
    train_depth_loss: float
    loss: float
    """On the validation tiles, as the next three."""
    class_loss: float
    depth_loss: float
    auc: float | None
    """Of malignant against other tiles."""
    depth_mae_mm: float | None
    train_map_loss: float = 0.0
    map_loss: float = 0.0
    """On the validation tiles."""


class Learner(lightning.LightningModule):
    """A network, its data and its settings; Lightning calls everything else."""

    weights: Tensor

    def __init__(self, model: TrainingNet, files: TileFiles, division: Division, settings: TrainingSettings) -> None:
        super().__init__()
        self.model, self.files, self.division, self.settings = model, files, division, settings
        allowed = files.labels.allowed[division.train]
        self.register_buffer("weights", torch.from_numpy(class_weights(allowed)), persistent=False)
        self.figures: EpochFigures | None = None
        """Of the last epoch that was validated."""
        self._train: list[tuple[float, float, float]] = []
        self._validated: list[tuple[Tensor, Tensor | None]] = []
        self._map_losses: list[tuple[float, int]] = []
        """The map loss of each validation batch, and how many tiles it has."""

    def train_dataloader(self) -> Batches:
        """The batches of this epoch."""
        order = training_order(
            self.division.train, self.settings, self.current_epoch,
            rank=self.trainer.global_rank, ranks=self.trainer.world_size,
        )  # fmt: skip
        depths = self.division.train[~np.isnan(self.files.labels.depth_mm[self.division.train])]
        measured: list[NDArray[np.intp]] = []
        if self.model.parts.depth and self.settings.depth_tiles:
            measured = depth_order(
                depths, self.settings, self.current_epoch, len(order),
                rank=self.trainer.global_rank, ranks=self.trainer.world_size,
            )  # fmt: skip
        return Batches(self.files, order, self.settings, self.current_epoch, measured)

    def val_dataloader(self) -> Batches:
        """The validation tiles as they are. Each of several GPUs sees all of them, so all decide alike."""
        return Batches(self.files, plain_order(self.division.validation, self.settings.batch), self.settings)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on a device."""
        return Batch(*(each.to(device, non_blocking=True) for each in batch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The joint loss of a batch."""
        kept = self._kept_channels(len(batch.tiles), batch_idx)
        measured_mm = self._measured(batch.depth_mm, batch_idx)
        predicted: Predicted = self.model(
            batch.tiles, batch.patients, kept, measured_mm=measured_mm, with_map=self._has_map
        )
        of_class = class_loss(predicted.logits.float(), batch.allowed, self.weights)
        depth_mm, known_mm = predicted.depth_mm, batch.depth_mm
        if depth_mm is not None and len(batch.averages):
            depth_mm = torch.cat([depth_mm.float(), self.model.depth_of_averages(batch.averages)])
            known_mm = torch.cat([known_mm, batch.averages_mm])
        of_depth = self._depth_loss(depth_mm, known_mm)
        of_map = self._map_loss(predicted, batch)
        self._train.append((float(of_class.detach()), float(of_depth.detach()), float(of_map.detach())))
        joint: Tensor = self._joint(of_class, of_depth, of_map)
        return joint

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep what the network says about a batch."""
        predicted: Predicted = self.model(batch.tiles, batch.patients, with_map=self._has_map)
        depth = predicted.depth_mm
        self._map_losses.append((float(self._map_loss(predicted, batch)), len(batch.tiles)))
        self._validated.append((predicted.logits.float().cpu(), None if depth is None else depth.float().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Compute the epoch's figures."""
        logits = torch.cat([each for each, _ in self._validated])
        depths = [depth for _, depth in self._validated if depth is not None]
        depth = torch.cat(depths) if depths else None
        labels = self.files.labels.of(self.division.validation)
        self._validated.clear()
        self.figures = self._figures(logits, depth, labels)
        self._train.clear()
        self._map_losses.clear()
        # For progress bars and callbacks of Lightning's own.
        self.log("val_loss", self.figures.loss, prog_bar=False, logger=False, sync_dist=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, and the schedule, step by step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.settings.learning_rate)
        if self.settings.schedule == "constant":
            return optimizer
        steps = self.settings.epochs * len(self.train_dataloader())
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + math.cos(math.pi * min(step / steps, 1))) / 2
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _joint(self, of_class: Any, of_depth: Any, of_map: Any) -> Any:
        """The joint loss, of tensors or of numbers."""
        return of_class + self.settings.depth_weight * of_depth + self.settings.map_weight * of_map

    @property
    def _has_map(self) -> bool:
        """Whether the lesion map is trained."""
        parts = self.model.parts
        return self.settings.map_weight > 0 and parts.attention and parts.classifier

    def _map_loss(self, predicted: Predicted, batch: Batch) -> Tensor:
        if predicted.lesion_map is None:
            return torch.zeros((), device=predicted.logits.device)
        return map_loss(predicted.lesion_map.float(), batch.shares)

    def _kept_channels(self, tiles: int, step: int) -> Tensor | None:
        """Dropout's factors for a step of this epoch, (tiles, C): 0, or what makes up for the hidden ones."""
        share = 1 - self.settings.dropout
        if share == 1:
            return None
        kept = self._rng(2, step).random((tiles, self.model.net.backbone.channels_out), np.float32) < share
        return torch.from_numpy(kept.astype(np.float32) / share).to(self.device)

    def _measured(self, known_mm: Tensor, step: int) -> Tensor | None:
        """The thicknesses that the classifier is given in a step in place of the estimates; NaN for the estimate."""
        if not self.settings.measured_depth:
            return None
        given = self._rng(3, step).random(len(known_mm)) < self.settings.measured_depth
        return known_mm.where(torch.from_numpy(given).to(known_mm.device), known_mm.new_tensor(math.nan))

    def _rng(self, purpose: int, step: int) -> np.random.Generator:
        """Random numbers of a step of this epoch, the same in every run with the seed."""
        return np.random.default_rng([self.settings.seed, self.current_epoch, purpose, step, self.trainer.global_rank])

    def _depth_loss(self, depth_mm: Tensor | None, known_mm: Tensor) -> Tensor:
        if depth_mm is None:
            return torch.zeros((), device=known_mm.device)
        return depth_loss(depth_mm.float(), known_mm, self.settings.depth_smooth_mm)

    def _figures(self, logits: Tensor, depth: Tensor | None, labels: Labels) -> EpochFigures:
        of_class = float(class_loss(logits, torch.from_numpy(labels.allowed), self.weights.cpu()))
        of_depth = float(self._depth_loss(depth, torch.from_numpy(labels.depth_mm)))
        if not math.isfinite(of_class + of_depth):
            raise UsageError(
                f"The loss of epoch {self.current_epoch + 1} is not a number: the steps were too large. Train into "
                f"another folder with --set learning_rate={self.settings.learning_rate / 10:g}."
            )
        predictions = Predictions(logits.double().softmax(1).numpy(), None if depth is None else depth.double().numpy())
        card = self.files.card
        scores = predictions.probabilities[:, list(card.malignant_columns)].sum(1)
        measured = ~np.isnan(labels.depth_mm)
        errors = None
        if predictions.depth_mm is not None:
            errors = depth_errors(labels.depth_mm[measured].astype(float), predictions.depth_mm[measured])
        train = np.mean(self._train, axis=0).tolist() if self._train else (math.nan,) * 3
        losses, sizes = zip(*self._map_losses, strict=True)
        of_map = float(np.average(losses, weights=sizes))
        return EpochFigures(
            epoch=self.current_epoch + 1,
            train_loss=self._joint(*train),
            train_class_loss=train[0],
            train_depth_loss=train[1],
            loss=self._joint(of_class, of_depth, of_map),
            class_loss=of_class,
            depth_loss=of_depth,
            auc=auc(labels.malignant(card), scores),
            depth_mae_mm=None if errors is None else errors.mae_mm,
            train_map_loss=train[2],
            map_loss=of_map,
        )


def predict(model: TrainingNet, files: TileFiles, rows: NDArray[np.intp], settings: TrainingSettings) -> Predictions:
    """What a network says about these tiles, with their patients, in evaluation mode."""
    logits, depths = [], []
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for batch in Batches(files, plain_order(rows, settings.batch), settings):
            predicted: Predicted = model(batch.tiles.to(device), batch.patients.to(device))
            logits.append(predicted.logits.double().cpu())
            if predicted.depth_mm is not None:
                depths.append(predicted.depth_mm.double().cpu())
    return Predictions(torch.cat(logits).softmax(1).numpy(), torch.cat(depths).numpy() if depths else None)
