"""`mminfer phantom cohort`."""

import json

import pytest

from melanoma_infer.phantom.mark import CAUTION


def test_a_cohort_is_written_and_named(mminfer, tmp_path):
    ended = mminfer("phantom", "cohort", "--tiles", 4, "--seed", 3, "--styles", "B,F", "--out", tmp_path / "data")
    assert (ended.code, ended.out.strip(), ended.err.strip()) == (0, str(tmp_path / "data"), CAUTION)
    facts = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert (facts["domain"], facts["tile_px"]) == ("phantom", 512)
    assert len(list((tmp_path / "data" / "tiles").glob("*/[01].png"))) == 4


@pytest.mark.parametrize(
    ("argv", "why"),
    [(("--styles", "A,G"), "'G'"), (("--tiles", "0"), "--tiles"), (("--seed", "-1"), "--seed")],
)
def test_an_impossible_cohort_is_refused_and_nothing_is_written(mminfer, tmp_path, argv, why):
    ended = mminfer("phantom", "cohort", "--tiles", "2", *argv, "--out", tmp_path / "data")
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "message"), [("dataset.json", "already holds a data set"), ("slide.svs", "exists and is no data set")]
)
def test_a_folder_that_holds_something_is_left_alone(mminfer, tmp_path, file, message):
    (tmp_path / file).write_text("mine")
    ended = mminfer("phantom", "cohort", "--tiles", "2", "--out", tmp_path)
    assert (ended.code, message in ended.err) == (2, True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, "mine")]
