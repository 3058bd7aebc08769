"""`mminfer phantom`."""

import json

import pytest

from melanoma_infer.phantom.mark import CAUTION
from melanoma_infer.slides import open_slide

SMALL = ("--size-um", "2000,1500", "--mpp", "1.0")


@pytest.mark.parametrize("lesion", ["melanoma", "nevus", "none"])
def test_a_slide_and_its_truth_are_written_and_named(mminfer, tmp_path, lesion):
    ended = mminfer("phantom", "slide", "--seed", 4, "--lesion", lesion, *SMALL, "--out", tmp_path / "p.svs")
    assert ended.code == 0
    assert ended.out.split() == [str(tmp_path / "p.svs"), str(tmp_path / "p.json")]
    assert ended.err.strip() == CAUTION
    truth = json.loads((tmp_path / "p.json").read_text())
    assert (truth["seed"], truth["lesion"], truth["size_um"], truth["um_per_px"]) == (4, lesion, [2000, 1500], 1.0)
    with open_slide(tmp_path / "p.svs") as slide:
        assert slide.facts.is_phantom


@pytest.mark.parametrize("there", ["p.svs", "p.json"])
def test_existing_files_are_not_overwritten_without_the_option(mminfer, tmp_path, there):
    (tmp_path / there).write_text("mine")
    asked = ("phantom", "slide", *SMALL, "--out", tmp_path / "p.svs")
    ended = mminfer(*asked)
    assert (ended.code, ended.out) == (2, "")
    assert "--overwrite" in ended.err
    assert (tmp_path / there).read_text() == "mine"
    assert mminfer(*asked, "--overwrite").code == 0
    with open_slide(tmp_path / "p.svs") as slide:
        assert slide.facts.is_phantom


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (("--size-um", "2000"), 2, "not a width and a height"),
        (("--size-um", "2000,wide"), 2, "not a width and a height"),
        (("--size-um", "2000,1500,3"), 2, "not a width and a height"),
        (("--size-um", "200,150"), 2, "1000 to 75000"),
        (("--size-um", "75000,75000", "--mpp", "0.5"), 2, "pixels"),
        (("--mpp", "5"), 2, "No slide scanner"),
        (("--lesion", "naevus"), 2, "--lesion"),
        (("--lesion", "nevus", "--depth-mm", "1"), 2, "--depth-mm and --width-mm are a melanoma's."),
        (("--case", "wart"), 2, "--case"),
        (("--style", "G"), 2, "--style"),
        (("--sections", "5"), 2, "1 to 4"),
        (("--depth-mm", "9"), 2, "0.2 to 8 mm"),
        (("--seed", "-1"), 2, "--seed"),
        (("--out", "p.tiff"), 2, ".svs"),
        (("--out", "nowhere/p.svs"), 14, "cannot be written"),
    ],
)
def test_an_impossible_phantom_is_refused_and_nothing_is_written(mminfer, tmp_path, monkeypatch, argv, code, why):
    monkeypatch.chdir(tmp_path)
    ended = mminfer("phantom", "slide", "--size-um", "2000,1500", "--mpp", "1", "--out", "p.svs", *argv)
    assert (ended.code, ended.out) == (code, "")
    assert why in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_its_options_reach_the_truth(mminfer, tmp_path):
    ended = mminfer(
        "phantom", "slide", "--seed", 4, "--style", "D", "--case", "ulcerated", "--case", "ink", "--depth-mm", 0.5,
        "--sections", 2, "--angle", 30, "--size-um", "4000,3600", "--mpp", 1, "--out", tmp_path / "p.svs",
    )  # fmt: skip
    assert ended.code == 0
    truth = json.loads((tmp_path / "p.json").read_text())
    assert (truth["style"], truth["cases"], truth["ulcerated"]) == ("D", ["ink", "ulcerated"], True)
    assert (len(truth["sections"]), truth["breslow_mm"]) == (2, pytest.approx(0.5))
