"""What is trained, from which weights, and what is compared."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from training_for_tests import training_card, write_small_dataset

from melanoma_infer.datasets.table import read_dataset, write_dataset
from melanoma_infer.errors import UsageError
from melanoma_infer.training.experiment import (
    comparison,
    final_network,
    load_backbone,
    prepare,
    spread,
    tile_figures,
    train,
)
from melanoma_infer.training.learner import Predictions
from melanoma_infer.training.network import Parts, seeded_net
from melanoma_infer.training.reports import comparison_files
from melanoma_infer.training.settings import TrainingSettings

QUICK = TrainingSettings(epochs=1, batch=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("data"), cases=12)


def without_depth(data: Path, target: Path) -> Path:
    """The same data set without any thickness."""
    import shutil

    shutil.copytree(data, target)
    tiles = [
        dataclasses.replace(tile, breslow_mm=None, surface_in_tile=None)
        for tile in read_dataset(target, training_card()).tiles
    ]
    write_dataset(target, tiles, training_card(), domain="phantom", origin="Drawn.")
    return target


def test_torchvision_s_names_fill_the_backbone_and_nothing_else():
    """ResNet-50's tensors, as its file has them, with its classifier, which is not used."""
    model, card = seeded_net(training_card(), Parts(), 1), training_card()
    given = {
        name: np.full(value.shape, 0.25, np.float32)
        for name, value in seeded_net(card, Parts(), 2).net.backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    } | {"fc.weight": np.zeros((1000, 128), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.running_var"} <= given.keys()
    head = model.net.w3.detach().clone()
    load_backbone(model, given)
    assert all(
        bool((value == 0.25).all())
        for name, value in model.net.backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )
    assert torch.equal(model.net.w3, head)


def test_weights_of_another_width_are_refused():
    model = seeded_net(training_card(), Parts(), 1)
    wide = {
        name: value.numpy()
        for name, value in seeded_net(training_card(network={"width": 8}), Parts(), 1).net.backbone.state_dict().items()
    }
    with pytest.raises(UsageError, match=r"conv1\.weight has the shape \[8, 3, 7, 7\]; .* \[4, 3, 7, 7\]"):
        load_backbone(model, wide)
    with pytest.raises(UsageError, match=r"conv1\.weight is missing"):
        load_backbone(model, {})


def test_a_network_too_narrow_for_pytorch_is_refused(data):
    with pytest.raises(UsageError, match=r"network\.width is 2; the narrowest is 4"):
        prepare(data, training_card(network={"width": 2}), QUICK)


def test_the_ablation_is_the_ladder_and_ends_with_the_whole_network(data):
    experiment = prepare(data, training_card(), QUICK, what="ablation")
    assert [(job.name, str(job.parts)) for job in experiment.jobs] == [
        ("unimodal", "backbone, one linear layer"),
        ("backbone", "backbone"),
        ("attention", "backbone + attention"),
        ("depth", "backbone + attention + depth"),
        ("patient", "backbone + attention + depth + patient"),
    ]
    assert experiment.final is experiment.jobs[-1]
    assert len({id(job.division) for job in experiment.jobs}) == 1


def test_what_the_data_do_not_have_is_no_rung(data, tmp_path):
    card = training_card(patient_fields=[])
    experiment = prepare(without_depth(data, tmp_path / "data"), card, QUICK, what="ablation")
    assert [job.name for job in experiment.jobs] == ["unimodal", "backbone", "attention"]
    assert "No training tile has a known thickness: the model will not estimate depth." in experiment.doubts


def test_each_fold_is_a_job_and_the_first_becomes_the_bundle(tmp_path):
    folder = write_small_dataset(tmp_path, cases=20, splits=False)
    experiment = prepare(folder, training_card(), QUICK, what="folds", folds=5)
    assert [job.name for job in experiment.jobs] == [f"fold-{number}" for number in range(1, 6)]
    assert experiment.final.name == "fold-1"


def test_networks_are_compared_in_tables_and_a_picture(data, tmp_path):
    experiment = prepare(data, training_card(), QUICK, what="ablation")
    first, last = experiment.jobs[0], experiment.jobs[-1]
    experiment = dataclasses.replace(experiment, jobs=(first, last), final=last)
    trained = train(experiment, tmp_path, lambda _job, _step: None)
    rows = comparison(trained)
    files = comparison_files(experiment, rows)
    read = list(csv.DictReader(files["ablation.csv"].decode().splitlines()))
    assert [row["network"] for row in read] == ["unimodal", "patient"]
    assert float(read[1]["auc"]) == trained[1].validation["auc"]
    assert read[0]["depth_mae_mm"] == ""
    assert float(read[1]["depth_mae_mm"]) > 0
    assert "| patient |" in files["ablation.md"].decode()
    assert "The data are drawings" in files["ablation.md"].decode()
    assert files["ablation.png"].startswith(b"\x89PNG")
    assert final_network(experiment, trained) is trained[1].fitted.model
    assert all((tmp_path / job.name / "history.csv").exists() for job in experiment.jobs)


def test_the_spread_over_folds_is_mean_and_sample_deviation():
    rows = [
        {"network": "a", "parts": "", "epoch": 1, "auc": 0.8, "depth_mae_mm": None},
        {"network": "b", "parts": "", "epoch": 2, "auc": 0.9, "depth_mae_mm": 0.1},
        {"network": "c", "parts": "", "epoch": 3, "auc": 1.0, "depth_mae_mm": 0.2},
    ]
    assert spread(rows) == {"auc": {"mean": pytest.approx(0.9), "sd": pytest.approx(0.1)}}


def test_figures_are_of_detection_outcome_and_depth(data):
    """Predictions set by hand: every malignant tile at 0.8, every other at 0.1, the outcome told from age alone."""
    experiment = prepare(data, training_card(), QUICK)
    rows = np.arange(len(experiment.data.tiles))
    labels = experiment.files.labels
    malignant, spread_out = labels.allowed[:, 1:].any(1), labels.allowed[:, 2]
    p = np.where(malignant[:, None], [0.2, 0.6, 0.2], [0.9, 0.05, 0.05])
    p[spread_out] = [0.2, 0.2, 0.6]
    depth = np.where(np.isnan(labels.depth_mm), 1.0, labels.depth_mm + 0.25)
    found = tile_figures(experiment, Predictions(p, depth.astype(float)), rows)
    assert (found["tiles"], found["patients"]) == (24, 12)
    assert (found["auc"], found["outcome_auc"]) == (1.0, 1.0)
    assert found["auc_95"] == (1.0, 1.0)
    assert found["at_0.5"]["accuracy"] == 1.0
    assert found["depth"]["tiles"] == int(malignant.sum())
    assert found["depth"]["mae_mm"] == pytest.approx(0.25, abs=1e-6)
    assert found["depth"]["pearson_r"] == pytest.approx(1.0)
