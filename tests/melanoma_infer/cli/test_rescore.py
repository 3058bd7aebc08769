"""`mminfer rescore`: the same result as scoring the slide again, and no other file changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept_for_tests import result_folders, same_bytes, summary_rows
from PIL import Image

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.reports.writing import REPORTS

PATIENTS = [
    ["--age", "71", "--sex", "male", "--site", "acral"],
    ["--ulceration", "yes"],
    ["--patient", "site=trunk"],
    [],
]


def read(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def rescored(scored: Path) -> Path:
    """The folder of the one result that rescoring made beside the first."""
    (other,) = (folder for folder in result_folders(scored.parent) if folder != scored)
    return other


@pytest.fixture(scope="module")
def scored_once(mminfer, cmu, tmp_path_factory) -> Path:
    """The slide, scored for a woman of 35."""
    out = tmp_path_factory.mktemp("rescore")
    argv = ["score", cmu, "--out", out, "--tile-um", "200", "--age", "35", "--sex", "female"]
    assert mminfer(*argv).code == 0
    (folder,) = out.glob("cmu*")
    return folder


@pytest.fixture
def scored(scored_once, tmp_path) -> Path:
    """A copy of the scored folder for each test, which writes into it."""
    return shutil.copytree(scored_once, tmp_path / "first" / scored_once.name)


@pytest.mark.parametrize("options", PATIENTS)
def test_rescoring_equals_scoring_again(mminfer, cmu, tmp_path, scored, options):
    assert mminfer("rescore", scored, *options).code == 0
    again = ["score", cmu, "--out", tmp_path / "again", "--tile-um", "200"]
    assert mminfer(*again, *(options or ["--age", "unknown"])).code == 0
    (fresh,) = result_folders(tmp_path / "again")
    ours, theirs = same_bytes(rescored(scored)), same_bytes(fresh)
    assert set(ours) == set(theirs) == set(REPORTS) - {"report.html"}
    # The slide is not opened again: pictures are drawn from a JPEG of it.
    for name in set(ours) - {"overlay.png", "pictures.npz"}:
        assert ours[name] == theirs[name], name


def test_its_pictures_are_those_of_the_slide(mminfer, scored):
    assert mminfer("rescore", scored, "--age", "71").code == 0
    pictures = [np.asarray(Image.open(folder / "overlay.png"), float) for folder in (scored, rescored(scored))]
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() < 3  # of 255: the thumbnail went through a JPEG
    page = (rescored(scored) / "report.html").read_text()
    assert page.count("data:image/jpeg") > 5


def test_every_patient_has_a_result_and_a_row_of_its_own_and_the_old_ones_stay(mminfer, scored):
    before = {path.name: path.read_bytes() for path in scored.iterdir()}
    for options in (*PATIENTS, PATIENTS[0]):  # the last one is there already
        assert mminfer("rescore", scored, *options).code == 0
    assert {path.name: path.read_bytes() for path in scored.iterdir()} == before
    others = [folder for folder in result_folders(scored.parent) if folder != scored]
    assert len(others) == len(PATIENTS)
    for folder in others:
        assert read(folder)["run"]["rescored_from"] == scored.name
        assert read(folder)["regions"] == read(scored)["regions"] != []
        assert read(folder)["malignant_score"] != read(scored)["malignant_score"]
    rows = [row for row in summary_rows(scored.parent) if row["rescored_from"] == scored.name]
    assert sorted(row["folder"] for row in rows) == [folder.name for folder in others]
    runs = [path.read_text() for path in (scored.parent / "runs").iterdir()]
    records = [run for run in map(json.loads, runs) if run["argv"][0] == "rescore"]
    assert sorted(record["slides"][0]["skipped"] for record in records) == [False] * len(PATIENTS) + [True]
    assert {record["state"] for record in records} == {"finished"}
    assert not [run for run in runs if "acral" in run or str(scored.parent) in run]


def test_a_replaced_result_is_rescored_beside_the_others(mminfer, scored):
    replaced = scored.parent / "replaced" / scored.name
    replaced.parent.mkdir()
    scored.rename(replaced)
    assert mminfer("rescore", replaced, "--age", "71").code == 0
    (new,) = result_folders(scored.parent)
    assert [row["folder"] for row in summary_rows(scored.parent)] == [new.name]
    assert list(replaced.parent.iterdir()) == [replaced]


def test_a_measured_thickness_takes_the_estimate_s_place(mminfer, scored):
    """Against the head by hand: features + W1d · (measured − estimated), then ReLU, ReLU, softmax."""
    assert mminfer("rescore", scored, "--breslow-mm", "4.2").code == 0
    head = open_bundle("demo").head
    assert head is not None
    with np.load(scored / "tiles.npz") as tiles, np.load(rescored(scored) / "tiles.npz") as again:
        features = tiles["features"] + np.outer(4.2 - tiles["depth_mm"].astype(np.float64), head.w1_depth)
        unknown = np.zeros(head.w1_patient.shape[1])
        unknown[[4, 7, 14, 17]] = 1  # the last columns of age (4 bands), sex (2), site (6), ulceration (2)
        first = np.maximum(features + head.w1_patient @ unknown + head.b1, 0)
        logits = np.maximum(first @ head.w2.T + head.b2, 0) @ head.w3.T + head.b3
        expected = np.exp(logits - logits.max(axis=1, keepdims=True))
        assert again["probabilities"] == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-12)
        assert np.array_equal(again["depth_mm"], tiles["depth_mm"])
    assert read(rescored(scored))["patient"]["breslow_mm"] == 4.2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--age", "171"], 13),
        (["--breslow-mm", "-1"], 13),
        (["--breslow-mm", "nan"], 13),
        (["--breslow-mm", "300"], 13),
        (["--patient", "age"], 2),
        (["--bundle", "nowhere"], 20),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_is_written(mminfer, scored, options, code):
    ended = mminfer("rescore", scored, *options)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert result_folders(scored.parent) == [scored]


def test_another_bundle_s_result_is_refused(mminfer, scored, colour_bundle):
    assert mminfer("rescore", scored, "--bundle", colour_bundle).code == 20


@pytest.mark.parametrize("missing", ["result.json", "tiles.npz"])
def test_an_unfinished_folder_is_refused(mminfer, scored, missing):
    (scored / missing).unlink()
    assert mminfer("rescore", scored, "--age", "40").code == 2


def test_a_model_without_patient_data_has_nothing_to_rescore(mminfer, cmu, tmp_path, colour_bundle):
    assert mminfer("score", cmu, "--out", tmp_path / "r", "--bundle", colour_bundle).code == 0
    (folder,) = (tmp_path / "r").glob("cmu*")
    ended = mminfer("rescore", folder, "--bundle", colour_bundle)
    assert (ended.code, "no patient data" in ended.err) == (2, True)


def test_rescoring_needs_no_slide(mminfer, scored, cmu, tmp_path):
    moved = shutil.move(scored, tmp_path / "elsewhere")
    assert mminfer("rescore", moved, "--age", "50", "--json").out.startswith("{")
