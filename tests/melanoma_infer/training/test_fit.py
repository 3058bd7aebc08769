"""Training: a small network learns a small task, and a run that was stopped ends with the same weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from training_for_tests import training_card, write_small_dataset

from melanoma_infer.errors import UsageError
from melanoma_infer.evaluation.figures import auc, depth_errors
from melanoma_infer.training.checkpoint import last_checkpoint
from melanoma_infer.training.experiment import Experiment, prepare
from melanoma_infer.training.fit import Fitted, Step, best_of, finished, fit
from melanoma_infer.training.learner import EpochFigures, Learner, predict
from melanoma_infer.training.network import Parts, seeded_net
from melanoma_infer.training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=2, batch=16, schedule="cosine", dropout=0.3)


class Killed(BaseException):
    """The run ends here, as by SIGKILL: nothing after it is done."""


def test_so_many_of_the_known_thicknesses_are_given_others_in_each_step(data):
    ready = experiment(data)
    learner = Learner(
        seeded_net(ready.card, Parts(), 0), ready.files, ready.final.division, TrainingSettings(measured_depth=0.25)
    )
    learner.trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    known_mm = torch.arange(1000.0)
    known_mm[::2] = torch.nan
    first, again, other = (learner._measured(known_mm, step) for step in (0, 0, 1))
    assert first is not None
    assert other is not None
    assert torch.equal(first.isnan(), again.isnan())
    assert not torch.equal(first.isnan(), other.isnan())
    given = ~first.isnan()
    assert torch.equal(first[given], known_mm[given])
    assert int(given.sum()) == pytest.approx(125, abs=30)
    learner.settings = TrainingSettings()
    assert learner._measured(known_mm, 0) is None


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("data"))


def experiment(data: Path, **changes) -> Experiment:
    return prepare(data, training_card(), SETTINGS.model_copy(update=changes))


def trained(data: Path, folder: Path, tell=lambda _step: None, **changes) -> Fitted:
    whole = experiment(data, **changes)
    model = seeded_net(whole.card, Parts(), whole.settings.seed)
    return fit(Learner(model, whole.files, whole.final.division, whole.settings), folder, tell)


def weights(fitted: Fitted) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in fitted.model.state_dict().items()}


@pytest.mark.slow
def test_it_learns_to_detect_and_to_measure_on_patients_that_it_has_not_seen(tmp_path):
    folder = write_small_dataset(tmp_path / "data", cases=60)
    fitted = trained(folder, tmp_path / "run", epochs=14, learning_rate=2e-3, colour=0.02, scale=1.05, dropout=0.0)
    losses = [each.loss for each in fitted.history]
    assert fitted.best.loss < 0.5 * losses[0]
    whole = experiment(folder)
    rows = whole.final.division.test
    predictions = predict(fitted.model, whole.files, rows, SETTINGS)
    labels = whole.files.labels.of(rows)
    assert auc(labels.malignant(whole.card), predictions.probabilities[:, 1:].sum(1)) == pytest.approx(1, abs=0.02)
    measured = ~np.isnan(labels.depth_mm)
    assert predictions.depth_mm is not None
    errors = depth_errors(labels.depth_mm[measured].astype(float), predictions.depth_mm[measured])
    assert errors is not None
    spread = np.abs(labels.depth_mm[measured] - np.median(labels.depth_mm[measured])).mean()
    assert errors.mae_mm < 0.6 * spread


@pytest.mark.parametrize(
    ("epoch", "batch"),
    [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow), pytest.param(2, 2, marks=pytest.mark.slow)],
)
def test_killed_and_resumed_gives_the_same_bytes(data, tmp_path, whole, epoch, batch):
    def killing(step: Step) -> None:
        if (step.epoch, step.batch) == (epoch, batch):
            raise Killed

    with pytest.raises(Killed):
        trained(data, tmp_path, killing)
    resumed = trained(data, tmp_path)
    assert weights(resumed) == weights(whole[0])
    assert resumed.history == whole[0].history
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found.read_bytes() == whole[1]


def test_dropout_hides_its_share_of_the_channels_others_in_each_step_and_never_in_validation(data):
    ready = experiment(data)
    learner = Learner(
        seeded_net(ready.card, Parts(), 0), ready.files, ready.final.division, TrainingSettings(dropout=0.25)
    )
    learner.trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    first, again, other = (learner._kept_channels(64, step) for step in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert sorted(set(first.flatten().tolist())) == [0, pytest.approx(4 / 3)]
    assert float(first.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    learner.settings = TrainingSettings()
    assert learner._kept_channels(64, 0) is None


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> tuple[Fitted, bytes]:
    """A run that nothing stopped, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    fitted, found = trained(data, folder), last_checkpoint(folder)
    assert found is not None
    return fitted, found.read_bytes()


def test_a_map_s_loss_is_part_of_the_joint_loss(data, tmp_path, whole):
    fitted = trained(data, tmp_path, epochs=1, map_weight=0.5)
    (epoch,) = fitted.history
    assert epoch.map_loss > 0
    assert epoch.train_map_loss > 0
    assert epoch.loss == pytest.approx(epoch.class_loss + epoch.depth_loss + 0.5 * epoch.map_loss)
    assert whole[0].history[0].map_loss == 0


def test_a_finished_run_is_not_trained_again(data, tmp_path, whole):
    (tmp_path / "epoch-0002.safetensors").write_bytes(whole[1])
    (tmp_path / "epoch-0002.sha256").write_text(hashlib.sha256(whole[1]).hexdigest())
    steps: list[Step] = []
    again = trained(data, tmp_path, steps.append)
    assert steps == []
    assert weights(again) == weights(whole[0])


def test_the_weights_that_are_kept_are_those_of_the_best_epoch(data, whole):
    """Its validation loss, computed again from the kept weights."""
    fitted, ready = whole[0], experiment(data)
    learner = Learner(fitted.model, ready.files, ready.final.division, ready.settings)
    with torch.inference_mode():
        for batch in learner.val_dataloader():
            learner.validation_step(batch, 0)
    logits = torch.cat([each for each, _ in learner._validated])
    depth = torch.cat([each for _, each in learner._validated if each is not None])
    labels = ready.files.labels.of(ready.final.division.validation)
    assert learner._figures(logits, depth, labels).loss == pytest.approx(fitted.best.loss, rel=1e-5)


def figures(*losses: float) -> tuple[EpochFigures, ...]:
    return tuple(
        EpochFigures(number, 0.0, 0.0, 0.0, loss, 0.0, 0.0, None, None) for number, loss in enumerate(losses, start=1)
    )


def test_training_ends_after_ten_epochs_without_a_lower_loss():
    settings = TrainingSettings()
    assert not finished((), settings)
    assert not finished(figures(3, 2, 1, *[1] * 9), settings)
    assert finished(figures(3, 2, 1, *[1] * 10), settings)
    assert not finished(figures(3, 2, 1, *[1] * 9, 0.9), settings)
    assert finished(figures(*range(50, 0, -1)), settings)
    assert best_of(figures(3, 2.5, 2, 2)).epoch == 3


def test_a_loss_that_is_not_a_number_ends_the_training_with_advice(data, tmp_path):
    with pytest.raises(UsageError, match=r"The loss of epoch 1 is not a number.*learning_rate=1e\+29"):
        trained(data, tmp_path, learning_rate=1e30)
    assert last_checkpoint(tmp_path) is None
