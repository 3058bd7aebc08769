"""A whole training: which networks are trained on which division of the data, and what is reported of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.table import Dataset, class_counts, read_dataset
from melanoma_infer.engines.openvino_engine import cpu_has_bf16
from melanoma_infer.errors import UsageError
from melanoma_infer.evaluation.bootstrap import auc_interval
from melanoma_infer.evaluation.figures import auc, decisions, depth_errors
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.runtime.plural import plural
from melanoma_infer.runtime.provenance import versions
from melanoma_infer.training.calibration import require_slides
from melanoma_infer.training.curves import learning_curves
from melanoma_infer.training.fit import Fitted, Step, fit
from melanoma_infer.training.learner import Learner, Predictions, predict
from melanoma_infer.training.memory import keep_freed_memory
from melanoma_infer.training.network import LADDER, Parts, TrainingNet, seeded_net
from melanoma_infer.training.record import digest_of_data, write
from melanoma_infer.training.settings import TrainingSettings
from melanoma_infer.training.splits import Division, divide, require_classes
from melanoma_infer.training.tile_files import TileFiles

WIDTH_MIN = 4
"""PyTorch 2.13 crashes in the convolutions of narrower networks on a CPU."""
SUSPECTED = 0.5
"""Decisions of single tiles, before there is a threshold."""
PACKAGES = ("lightning", "scikit-learn", "matplotlib", "safetensors")

What = Literal["one", "folds", "ablation"]
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """One network to train."""

    name: str
    """Of its folder."""
    parts: Parts
    division: Division


@dataclass(frozen=True)
class Trained:
    """A job that is done."""

    job: Job
    fitted: Fitted
    validation: dict[str, Any]
    """Figures on the validation tiles."""


@dataclass(frozen=True)
class Experiment:
    """Data, card and settings, read and checked: everything that a training needs."""

    data: Dataset
    card: ModelCard
    files: TileFiles
    settings: TrainingSettings
    jobs: tuple[Job, ...]
    final: Job
    """The job whose network becomes the bundle."""
    what: What
    doubts: tuple[str, ...]
    """What the user should know before hours of work."""
    initial: Tensors | None
    """torchvision's weights by name."""

    @property
    def depth(self) -> bool:
        """Whether thickness is learned: whether that of any training tile is known."""
        return self.final.parts.depth

    def facts(self) -> dict[str, Any]:
        """What decides the weights: a run is resumed only with the same."""
        weights = None
        if self.initial is not None:
            whole = hashlib.sha256()
            for name in sorted(self.initial):
                whole.update(name.encode() + np.ascontiguousarray(self.initial[name]).tobytes())
            weights = whole.hexdigest()
        return {
            "what": self.what,
            "jobs": len(self.jobs),
            "settings": self.settings.model_dump(mode="json"),
            "card": json.loads(self.card.model_dump_json()),
            "data_sha256": digest_of_data(self.data),
            "weights_sha256": weights,
            "threads": available_cores(),
            "versions": versions_of_training(),
        }


def versions_of_training() -> dict[str, str]:
    """Versions of this package and of what computes in a training."""
    from importlib.metadata import version

    return {**versions(), **{name: version(name) for name in PACKAGES}}


def prepare(
    folder: Path,
    card: ModelCard,
    settings: TrainingSettings,
    *,
    what: What = "one",
    folds: int = 1,
    initial: Tensors | None = None,
) -> Experiment:
    """Everything that a training needs, read and checked.

    Args:
        folder: the data set.
        card: with `network`.
        settings: of the training.
        what: "one" network, the same on several "folds", or the "ablation".
        folds: for "folds": how many.
        initial: torchvision's weights of ResNet-50.

    Raises:
        UsageError: the card has no network or too narrow a one, or options contradict each other.
        DatasetError: the data cannot be used; row, column and file are named.
    """
    if card.network is None:
        raise UsageError(
            "The card does not say how wide the network is. Add two lines to its end: [network] and width = 64, which "
            "is ResNet-50; a smaller number trains faster."
        )
    if card.network.width < WIDTH_MIN:
        raise UsageError(f"The card's network.width is {card.network.width}; the narrowest is {WIDTH_MIN}.")
    if settings.precision == "bf16" and not (torch.cuda.is_available() or cpu_has_bf16()):
        raise UsageError("This CPU does not compute in bf16: it would be slower than fp32. Leave out precision=bf16.")
    if settings.devices > max(1, torch.cuda.device_count()):
        raise UsageError(f"devices={settings.devices}: this machine has {plural(torch.cuda.device_count(), 'GPU')}.")
    data = read_dataset(folder, card)
    files = TileFiles.of(data, card)
    labels = files.labels
    divisions = divide(data.tiles, labels, seed=settings.seed, folds=folds)
    doubts: list[str] = []
    for division in divisions:
        doubts += require_classes(division, labels, card)
    require_slides(data, divisions[0])
    depth = bool((~np.isnan(labels.depth_mm[divisions[0].train])).any())
    if not depth:
        doubts.append("No training tile has a known thickness: the model will not estimate depth.")
    whole = Parts(depth=depth, patient=bool(card.patient_fields))
    jobs = [Job("model", whole, divisions[0])]
    if what == "folds":
        jobs = [Job(f"fold-{number}", whole, each) for number, each in enumerate(divisions, start=1)]
    elif what == "ablation":
        skipped = {"depth": not depth, "patient": not whole.patient}
        rungs = {name: parts for name, parts in LADDER.items() if not skipped.get(name)}
        jobs = [
            Job(name, Parts(parts.attention, parts.depth and depth, parts.patient, parts.classifier), divisions[0])
            for name, parts in rungs.items()
        ]
    final = jobs[-1] if what == "ablation" else jobs[0]
    return Experiment(data, card, files, settings, tuple(jobs), final, what, tuple(dict.fromkeys(doubts)), initial)


def train(experiment: Experiment, out: Path, tell: Callable[[Job, Step], None]) -> list[Trained]:
    """Train every job in its folder under `out`; what is done already is not done again.

    Args:
        experiment: from `prepare`.
        out: the training folder.
        tell: called after each step.

    Raises:
        UsageError: the initial weights do not fit, or a checkpoint is damaged.
        OutputError: a file cannot be written.
        DatasetError: a picture cannot be read.
    """
    # The order of a sum depends on how many threads share it.
    torch.set_num_threads(available_cores())
    keep_freed_memory()
    done = []
    for job in experiment.jobs:
        model = seeded_net(experiment.card, job.parts, experiment.settings.seed)
        if experiment.initial is not None:
            load_backbone(model, experiment.initial)
        learner = Learner(model, experiment.files, job.division, experiment.settings)
        fitted = fit(learner, out / job.name, lambda step, job=job: tell(job, step))  # type: ignore[misc]
        write(out / job.name / "curves.png", learning_curves(fitted.history, fitted.best))
        done.append(Trained(job, fitted, figures(experiment, fitted.model, job.division.validation)))
    return done


def load_backbone(model: TrainingNet, tensors: Tensors) -> None:
    """Set the backbone to torchvision's weights of ResNet-50; its classifier `fc` is not used.

    Raises:
        UsageError: a tensor is missing, or has another shape.
    """
    backbone = model.net.backbone
    own = backbone.state_dict()
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        given = tensors.get(name)
        if given is None or tuple(given.shape) != tuple(value.shape):
            found = "is missing" if given is None else f"has the shape {list(given.shape)}"
            raise UsageError(
                f"--weights: {name} {found}; the card's network needs {list(value.shape)}. Give torchvision's "
                "ResNet-50 weights, and width = 64 under [network] in the card."
            )
        value.copy_(torch.from_numpy(np.array(given)))


def figures(experiment: Experiment, model: TrainingNet, rows: NDArray[np.intp]) -> dict[str, Any]:
    """What a network is worth on these tiles, with their patients."""
    predictions = predict(model, experiment.files, rows, experiment.settings)
    return tile_figures(experiment, predictions, rows)


def tile_figures(experiment: Experiment, predictions: Predictions, rows: NDArray[np.intp]) -> dict[str, Any]:
    """Figures of predictions for these tiles: detection, outcome among malignant tiles, depth."""
    card, labels = experiment.card, experiment.files.labels.of(rows)
    patients = [experiment.data.tiles[row].case_id for row in rows]
    p, positive = predictions.probabilities, labels.malignant(card)
    malignant = p[:, list(card.malignant_columns)].sum(1)
    found: dict[str, Any] = {
        "tiles": len(rows),
        "patients": len(set(patients)),
        "classes": class_counts([experiment.data.tiles[row] for row in rows], card),
        "auc": auc(positive, malignant),
        "auc_95": auc_interval(positive, malignant, patients),
        f"at_{SUSPECTED:g}": asdict(decisions(positive, malignant >= SUSPECTED)),
        "outcome_auc": None,
        "depth": None,
    }
    known = positive & (labels.allowed.sum(1) == 1)
    if card.outcome is not None and known.any():
        occurred = labels.outcome(card)
        share = p[:, list(card.outcome_columns)].sum(1) / np.maximum(malignant, 1e-12)
        found["outcome_auc"] = auc(occurred[known], share[known])
    measured = ~np.isnan(labels.depth_mm)
    if predictions.depth_mm is not None and measured.any():
        errors = depth_errors(labels.depth_mm[measured].astype(np.float64), predictions.depth_mm[measured])
        found["depth"] = None if errors is None else asdict(errors)
    return found


def final_network(experiment: Experiment, trained: Sequence[Trained]) -> TrainingNet:
    """The network that becomes the bundle; the column of a depth that was not trained is zero."""
    (model,) = (each.fitted.model for each in trained if each.job is experiment.final)
    with torch.no_grad():
        if not model.parts.depth:
            model.net.w1_depth.zero_()
    return model


def comparison(trained: Sequence[Trained]) -> list[dict[str, Any]]:
    """One row a network: its parts and its validation figures."""
    rows = []
    for each in trained:
        low, high = each.validation["auc_95"] or (None, None)
        depth = each.validation["depth"] or {}
        at = each.validation[f"at_{SUSPECTED:g}"]
        rows.append(
            {
                "network": each.job.name,
                "parts": str(each.job.parts),
                "epoch": each.fitted.best.epoch,
                "loss": each.fitted.best.loss,
                "auc": each.validation["auc"],
                "auc_low": low,
                "auc_high": high,
                "accuracy": at["accuracy"],
                "sensitivity": at["sensitivity"],
                "specificity": at["specificity"],
                "outcome_auc": each.validation["outcome_auc"],
                "depth_mae_mm": depth.get("mae_mm"),
            }
        )
    return rows


def spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over folds of every figure that each fold has; n − 1 in the denominator."""
    numbers = {name: [row[name] for row in rows] for name in rows[0] if name not in ("network", "parts", "epoch")}
    return {
        name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
        for name, values in numbers.items()
        if all(value is not None for value in values)
    }
