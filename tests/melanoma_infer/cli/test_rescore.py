"""`mminfer rescore`: the same result as scoring the slide again, and no other file changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import open_bundle

PATIENTS = [
    ["--age", "71", "--sex", "male", "--site", "acral"],
    ["--ulceration", "yes"],
    ["--patient", "site=trunk"],
    [],
]


def read(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for name in ("timings_ms", "settings_digest"):
        del result[name]
    return result


@pytest.fixture(scope="module")
def scored_once(mminfer, cmu, tmp_path_factory) -> Path:
    """The slide, scored for a woman of 35."""
    out = tmp_path_factory.mktemp("rescore")
    argv = ["score", cmu, "--out", out, "--tile-um", "256", "--age", "35", "--sex", "female"]
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
    again = ["score", cmu, "--out", tmp_path / "again", "--tile-um", "256"]
    assert mminfer(*again, *(options or ["--age", "unknown"])).code == 0
    (fresh,) = (tmp_path / "again").glob("cmu*")
    for name in ("tiles.csv", "tiles.geojson", "regions.geojson", "tiles.npz"):
        assert (scored / "rescored-1" / name).read_bytes() == (fresh / name).read_bytes(), name
    assert read(scored / "rescored-1") == read(fresh)


def test_the_old_result_and_the_outlines_do_not_change(mminfer, scored):
    before = {path.name: path.read_bytes() for path in scored.iterdir()}
    for options in PATIENTS:
        assert mminfer("rescore", scored, *options).code == 0
    assert {path.name for path in scored.iterdir() if path.is_dir()} == {f"rescored-{n}" for n in (1, 2, 3, 4)}
    for name, content in before.items():
        assert (scored / name).read_bytes() == content
    for number in (1, 2, 3, 4):
        assert read(scored / f"rescored-{number}")["regions"] == read(scored)["regions"] != []
        assert read(scored / f"rescored-{number}")["malignant_score"] != read(scored)["malignant_score"]


def test_a_measured_thickness_takes_the_estimate_s_place(mminfer, scored):
    """Against the head by hand: features + W1d · (measured − estimated), then ReLU, ReLU, softmax."""
    assert mminfer("rescore", scored, "--breslow-mm", "4.2").code == 0
    head = open_bundle("demo").head
    assert head is not None
    with np.load(scored / "tiles.npz") as tiles, np.load(scored / "rescored-1" / "tiles.npz") as again:
        features = tiles["features"] + np.outer(4.2 - tiles["depth_mm"].astype(np.float64), head.w1_depth)
        unknown = np.zeros(head.w1_patient.shape[1])
        unknown[[4, 7, 14, 17]] = 1  # the last columns of age (4 bands), sex (2), site (6), ulceration (2)
        first = np.maximum(features + head.w1_patient @ unknown + head.b1, 0)
        logits = np.maximum(first @ head.w2.T + head.b2, 0) @ head.w3.T + head.b3
        expected = np.exp(logits - logits.max(axis=1, keepdims=True))
        assert again["probabilities"] == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-12)
        assert np.array_equal(again["depth_mm"], tiles["depth_mm"])
    assert read(scored / "rescored-1")["patient"]["breslow_mm"] == 4.2


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
    assert not list(scored.glob("rescored-*"))


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
