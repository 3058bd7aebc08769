"""`mminfer train`: from a data set to a bundle that scores a slide; stopped and resumed; refused with a reason."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands_for_tests import run_main
from slides_for_tests import write_tiff
from training_for_tests import CARD, NETWORK, NO, SPREAD, TILE_PX, drawn, training_card, write_small_dataset

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.datasets.table import LabelledSlide

QUICK = ("--epochs", 2, "--set", "batch=16")
FINER = 23
COMMAND = "import sys; sys.argv[0] = 'mminfer'; from melanoma_infer.cli.app import main; main()"


def write_slide(path: Path, depth_mm: float | None) -> Path:
    """Two tiles side by side at about 1 µm/px, one of them with a lesion if a depth is given."""
    rng = np.random.default_rng(5)
    tiles = np.concatenate([drawn(rng, depth_mm), drawn(rng, None)], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    fine = tiles.repeat(FINER, 0).repeat(FINER, 1)
    return write_tiff(path, fine, mpp=(3000 / TILE_PX / FINER,) * 2, compression="jpeg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data set of tissue with two validation slides, and its card."""
    folder = tmp_path_factory.mktemp("train")
    slides = []
    for name, depth_mm, label in (("with", 1.4, SPREAD), ("without", None, NO)):
        path = write_slide(folder / "slides" / f"{name}.tif", depth_mm)
        slides.append(LabelledSlide(name, str(path), f"{name} case", label, "validation"))
    write_small_dataset(folder / "data", slides=tuple(slides), domain="tissue")
    (folder / "card.toml").write_text(CARD + NETWORK)
    return folder


@pytest.fixture(scope="module")
def finished(folder) -> tuple[Path, str]:
    """A training of two epochs, and what it printed."""
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mminfer_export.precisions.KEPT_FLOAT", ())  # a tenth of the attempts at an int8 graph
        # Two slides do not exclude chance, and it would get no threshold.
        patch.setattr("melanoma_infer.training.calibration.chance_doubt", lambda *_: None)
        ended = run_main("train", folder / "data", "--card", folder / "card.toml", "--out", out, *QUICK)
    assert ended.code == 0, ended.err
    return out, ended.out


def test_the_bundle_says_what_it_was_trained_on_and_how_its_threshold_was_set(finished):
    bundle = open_bundle(finished[0] / "model.mminfer")
    card = bundle.card
    assert (card.trained, card.domain) == (True, "tissue")
    assert card.training_data == "Drawn discs under a line. 32 tiles of 16 patients."
    assert card.undocumented is None
    assert card.threshold is not None
    assert card.threshold.low <= card.threshold.value <= card.threshold.high
    assert card.threshold.how.startswith(
        "by Youden's index on 2 validation slides of 2 patients, of which 1 (50%) are malignant"
    )
    assert card.outputs == ("depth_mm", "attention", "cam", "features")
    assert bundle.precisions[0] == "fp32"
    golden = {tile.tobytes() for tile in bundle.golden.tiles}
    from PIL import Image

    rows = csv.DictReader((finished[0].parent / "data" / "tiles.csv").read_text().splitlines())
    validation = {
        np.asarray(Image.open(finished[0].parent / "data" / row["tile"])).tobytes()
        for row in rows if row["split"] == "validation"
    }  # fmt: skip
    assert golden <= validation


def test_the_report_of_the_training_is_complete(finished):
    out, said = finished
    report = json.loads((out / "training.json").read_text())
    assert report["settings"]["batch"] == 16
    assert report["settings"]["learning_rate"] == 1e-3
    assert [report["split"][name]["tiles"] for name in ("train", "validation", "test")] == [32, 8, 8]
    patients = [set(report["split"][name]["patients"]) for name in ("train", "validation", "test")]
    assert sum(map(len, patients)) == 24 == len(set.union(*patients))
    assert report["validation"]["tiles"] == report["test"]["tiles"] == 8
    assert {"torch", "lightning", "mminfer"} <= report["versions"].keys()
    rows = list(csv.DictReader((out / "model" / "history.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [each["loss"] for each in report["networks"]["model"]["history"]]
    assert report["best_loss"] == min(float(row["loss"]) for row in rows)
    assert (out / "model" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "test tiles" in said
    assert said.rstrip().endswith("model.mminfer")


def test_the_data_s_digest_covers_every_byte_of_the_tiles(finished, tmp_path):
    from melanoma_infer.datasets.table import read_dataset
    from melanoma_infer.training.record import digest_of_data

    data = finished[0].parent / "data"
    digest = json.loads((finished[0] / "training.json").read_text())["data_sha256"]
    assert digest_of_data(read_dataset(data, training_card())) == digest
    copy = shutil.copytree(data, tmp_path / "data")
    path = next((copy / "tiles").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")
    assert digest_of_data(read_dataset(copy, training_card())) != digest


def test_the_bundle_scores_a_slide(finished, tmp_path):
    slide = write_slide(tmp_path / "slide.tif", 1.0)
    bundle = finished[0] / "model.mminfer"
    ended = run_main("score", slide, "--bundle", bundle, "--out", tmp_path / "results", "--age", "61")
    assert ended.code == 0, ended.err
    (path,) = (tmp_path / "results").glob("*/result.json")
    result = json.loads(path.read_text())
    assert result["tiles"]["ok"] == 2
    assert 0 <= result["malignant_score"] <= 1
    assert "model-untrained" not in path.read_text()


def test_a_finished_training_is_not_repeated_and_not_overwritten(finished, folder):
    before = (finished[0] / "training.json").stat().st_mtime_ns
    arguments = ("train", folder / "data", "--card", folder / "card.toml", "--out", finished[0], *QUICK)
    refused = run_main(*arguments)
    assert (refused.code, "Give --resume" in refused.err) == (2, True)
    again = run_main(*arguments, "--resume")
    assert (again.code, "finished training" in again.err) == (0, True)
    other = run_main(*arguments, "--resume", "--seed", 3)
    assert other.code == 2
    assert "settings.seed was 0 and is 3" in other.err
    assert (finished[0] / "training.json").stat().st_mtime_ns == before


def test_a_card_without_a_network_says_which_lines_to_add(folder, tmp_path):
    (tmp_path / "card.toml").write_text(CARD)
    ended = run_main("train", folder / "data", "--card", tmp_path / "card.toml", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "[network] and width = 64" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_validation_slide_that_cannot_be_scored_is_found_before_the_training(folder, tmp_path):
    data = shutil.copytree(folder / "data", tmp_path / "data")
    slide = write_tiff(tmp_path / "no-scale.tif", drawn(np.random.default_rng(1), None), mpp=None)
    with (data / "slides.csv").open("a") as file:
        file.write(f"no-scale,{slide},another case,{NO},validation\n")
    ended = run_main("train", data, "--card", folder / "card.toml", "--out", tmp_path / "out", *QUICK)
    assert ended.code != 0
    assert "slides.csv, the row of no-scale: " in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--set", "patience=0"), "--set patience: input should be greater than or equal to 1, not 0."),
        (("--precisions", "int4"), "--precisions int4: choose among fp16, int8; fp32 is always made."),
        (("--set", "rotation=1"), "--set rotation: there is no such setting. The settings are seed, "),
        (("--set", "epochs=3"), "use the option of that name"),
        (("--set", "batch"), "give KEY=VALUE"),
        (("--set", "devices=99"), "devices=99: this machine has "),
        (("--ablation", "--folds", 5), "cannot be combined"),
        (("--folds", 5), "tiles.csv states splits"),
        (("--weights", "nothing.pth"), "nothing.pth is no weights file"),
    ],
)
def test_what_contradicts_itself_is_refused(folder, tmp_path, argv, words):
    ended = run_main("train", folder / "data", "--card", folder / "card.toml", "--out", tmp_path / "out", *argv)
    assert (ended.code, words in ended.err) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_a_training_in_use_is_not_joined(folder, tmp_path):
    from melanoma_infer.training.record import alone

    with alone(tmp_path / "out"):
        ended = run_main("train", folder / "data", "--card", folder / "card.toml", "--out", tmp_path / "out", *QUICK)
    assert (ended.code, "Another training writes" in ended.err) == (14, True)


def start(*argv: object, err: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, argv)],
        env=environment, stdout=subprocess.DEVNULL, stderr=err, text=True,
    )  # fmt: skip


def digests(out: Path) -> dict[str, str]:
    """Of everything that must be equal, however often the run was stopped."""
    files = [*out.glob("model/epoch-*.safetensors"), *out.glob("model.mminfer/*"), out / "model" / "history.csv"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(folder, tmp_path):
    out = tmp_path / "out"
    run = start(
        "train", folder / "data", "--card", folder / "card.toml", "--out", out, "--epochs", 500, err=subprocess.PIPE
    )
    while not list(out.glob("model/*.sha256")):
        time.sleep(0.1)
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, err = run.communicate()
    assert run.returncode == 130
    assert "every whole epoch is kept" in err
    assert "--resume" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bundle(folder, tmp_path):
    argv = ("train", folder / "data", "--card", folder / "card.toml", *QUICK)
    began = time.monotonic()
    run = start(*argv, "--out", tmp_path / "whole")
    assert run.wait() == 0
    lasted = time.monotonic() - began
    whole = digests(tmp_path / "whole")
    assert len(whole) >= 9
    luck, kills = random.Random(3), 0
    for attempt in range(2):
        out = tmp_path / f"out{attempt}"
        for _ in range(3):
            run = start(*argv, "--resume", "--out", out)
            try:
                run.wait(luck.uniform(0.15, 0.95) * lasted)
                break
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                kills += 1
        run = start(*argv, "--resume", "--out", out)
        assert run.wait() == 0
        assert digests(out) == whole
    assert kills >= 2  # else the proof proved nothing: the machine was faster than the kills
