"""One network trained on one division of the data, from the last whole epoch if there is one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from melanoma_infer.training.checkpoint import SealedCheckpoints, checkpoint_path, last_checkpoint, read_checkpoint
from melanoma_infer.training.learner import EpochFigures, Learner
from melanoma_infer.training.network import TrainingNet
from melanoma_infer.training.record import table_csv, write
from melanoma_infer.training.settings import TrainingSettings

CALLBACK = "epochs"
HISTORY = "history.csv"


@dataclass(frozen=True)
class Step:
    """How far a training is, told after each step."""

    epoch: int
    """From 1."""
    batch: int
    """Batches done in this epoch."""
    batches: int
    last: EpochFigures | None
    """Of the last whole epoch."""
    best: EpochFigures | None


Tell = Callable[[Step], None]


@dataclass(frozen=True)
class Fitted:
    """A trained network: the weights of its best epoch, and every epoch's figures."""

    model: TrainingNet
    history: tuple[EpochFigures, ...]

    @property
    def best(self) -> EpochFigures:
        """The epoch with the lowest validation loss, whose weights these are."""
        return best_of(self.history)


def best_of(history: tuple[EpochFigures, ...]) -> EpochFigures:
    """The epoch with the lowest validation loss, the first of several."""
    return min(history, key=lambda each: each.loss)


def finished(history: tuple[EpochFigures, ...], settings: TrainingSettings) -> bool:
    """Whether all epochs are done, or `patience` of them have gone by without a lower validation loss."""
    if not history:
        return False
    return len(history) >= settings.epochs or len(history) - best_of(history).epoch >= settings.patience


def fit(learner: Learner, folder: Path, tell: Tell) -> Fitted:
    """Train until `finished`; the network then has the weights of its best epoch.

    Args:
        learner: network, data and settings.
        folder: for checkpoints; one that is there is gone on from.
        tell: called after each step.

    Raises:
        OutputError: a checkpoint cannot be written.
        UsageError: the loss is not a number, or a checkpoint is damaged.
        DatasetError: a picture cannot be read.
    """
    settings, epochs = learner.settings, _Epochs(folder, tell)
    start = last_checkpoint(folder)
    if start is not None:
        epochs.load_state_dict(read_checkpoint(start)["callbacks"][CALLBACK])
    if not finished(epochs.history, settings):
        with _quietly():
            trainer = lightning.Trainer(
                accelerator="auto" if settings.devices > 1 or torch.cuda.is_available() else "cpu",
                devices=settings.devices,
                precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
                max_epochs=settings.epochs,
                callbacks=[epochs],
                plugins=[SealedCheckpoints()],
                # Some operators have no deterministic version on a GPU: there it is as good as it can be.
                deterministic="warn" if torch.cuda.is_available() else True,
                reload_dataloaders_every_n_epochs=1,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                sync_batchnorm=settings.devices > 1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=folder,
            )
            trainer.fit(learner, ckpt_path=start, weights_only=True)
    learner.model.load_state_dict(epochs.best_weights)
    return Fitted(learner.model.cpu().eval(), epochs.history)


class _Epochs(lightning.Callback):
    """Keeps figures and the best weights, writes a checkpoint after each epoch, and ends the training."""

    def __init__(self, folder: Path, tell: Tell) -> None:
        self.history: tuple[EpochFigures, ...] = ()
        self.best_weights: dict[str, Tensor] = {}
        self._folder, self._tell = folder, tell

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint."""
        return CALLBACK

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"history": [asdict(each) for each in self.history], "best": self.best_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self.history = tuple(EpochFigures(**each) for each in state_dict["history"])
        self.best_weights = state_dict["best"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, learner: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell how far it is."""
        last = self.history[-1] if self.history else None
        best = best_of(self.history) if self.history else None
        self._tell(Step(trainer.current_epoch + 1, batch_idx + 1, int(trainer.num_training_batches), last, best))

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: Any) -> None:
        """Lightning has validated: keep the epoch."""
        self.history = (*self.history, learner.figures)
        if best_of(self.history) is learner.figures:
            weights = learner.model.state_dict()
            self.best_weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        trainer.save_checkpoint(checkpoint_path(self._folder, len(self.history)))
        if trainer.is_global_zero:
            write(self._folder / HISTORY, table_csv([asdict(each) for each in self.history]))
        trainer.should_stop = finished(self.history, learner.settings)


@contextmanager
def _quietly() -> Iterator[None]:
    """Within it, Lightning prints neither its choices nor advice: progress is told by `tell`."""
    logs = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
