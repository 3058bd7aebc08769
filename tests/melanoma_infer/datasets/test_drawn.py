"""A phantom cohort as a data set."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.datasets.class_names import class_names
from melanoma_infer.datasets.drawn import Cohort, write_cohort
from melanoma_infer.datasets.making import Recipe, from_tiles
from melanoma_infer.datasets.ready_made import tiles_of_folders, tiles_of_table
from melanoma_infer.datasets.table import read_dataset
from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.labels import Label, draw_labels
from melanoma_infer.phantom.tiles import phantom_case

CARD = open_bundle("demo").card


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "data"
    write_cohort(folder, CARD, Cohort(19, 0, 5, ("A", "E")), processes=1)
    return folder


def truth_of(folder) -> list[dict[str, str]]:
    with (folder / "truth.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_is_a_data_set_of_phantoms_that_reads_back(folder):
    data = read_dataset(folder, CARD)
    assert (data.domain, data.tile_px, len(data.tiles)) == ("phantom", 512, 19)
    assert "v1" in data.origin
    assert {tile.label for tile in data.tiles} <= set(CARD.classes)
    with Image.open(folder / data.tiles[0].tile) as picture:
        assert (picture.size, picture.mode) == ((512, 512), "RGB")
    assert json.loads((folder / "dataset.json").read_text())["domain"] == "phantom"


def test_no_copy_of_its_tiles_becomes_tissue(folder, tmp_path):
    card = CARD.model_copy(update={"domain": "tissue"})
    copied = from_tiles(tiles_of_table(folder / "tiles.csv", card, um_per_px=None), Recipe(card, tmp_path / "copy"))
    (tmp_path / "mine" / "no_lesion").mkdir(parents=True)
    shutil.copy(folder / read_dataset(folder, CARD).tiles[0].tile, tmp_path / "mine" / "no_lesion")
    names = class_names((), (), card)
    again = from_tiles(
        tiles_of_folders(tmp_path / "mine", names, card, um_per_px=3000 / 512, case_from=None),
        Recipe(card, tmp_path / "again"),
    )
    assert (copied.domain, again.domain) == ("phantom", "phantom")
    assert read_dataset(tmp_path / "again", card).domain == "phantom"


def test_a_patient_has_one_split_and_headline_styles_are_for_testing(folder):
    splits, styles = {}, {row["case_id"]: row["style"] for row in truth_of(folder)}
    for tile in read_dataset(folder, CARD).tiles:
        assert splits.setdefault(tile.case_id, tile.split) == tile.split
        if styles[tile.case_id] == "E":
            assert tile.split == "test"
    assert set(styles.values()) == {"A", "E"}


def test_thickness_and_outcome_are_given_for_melanomas_alone(folder):
    rows = {row["tile"]: row for row in truth_of(folder)}
    malignant = 0
    for tile in read_dataset(folder, CARD).tiles:
        row = rows[tile.tile]
        assert (tile.breslow_mm is not None) == (row["shows"] == "melanoma") == (tile.outcome is not None)
        if row["shows"] == "melanoma":
            malignant += 1
            assert tile.label == f"melanoma_{'' if tile.outcome else 'no_'}metastasis_recorded"
            assert 0 < float(row["p_outcome"]) < 1
            assert tile.breslow_mm == pytest.approx(float(row["breslow_mm"]), abs=1e-4)
    assert malignant > 3


def test_masks_hold_all_of_a_lesion_and_little_else(folder):
    """Against the label map, which is drawn from the same scene by other code."""
    rows = {row["tile"]: row for row in truth_of(folder)}
    looked_at = 0
    for tile in read_dataset(folder, CARD).tiles:
        assert (tile.mask is None) == (tile.label == "no_lesion")
        if tile.mask is None:
            continue
        row = rows[tile.tile]
        scene = phantom_case(int(row["seed"]), ("A", "E")).scene
        rect = RectPx(int(row["x_px"]), int(row["y_px"]), 512, 512)
        labels = draw_labels(scene, rect, 3000 / 512)
        lesion = (labels >= Label.NEVUS) & (labels != Label.INK)
        with Image.open(folder / tile.mask) as mask:
            inside = np.asarray(mask)
        assert inside[lesion].mean() > 0.97
        assert inside[labels == Label.BACKGROUND].mean() < 0.02
        looked_at += 1
    assert looked_at > 4


@pytest.mark.slow
def test_processes_and_slides_change_no_tile(folder, tmp_path):
    write_cohort(tmp_path / "more", CARD, Cohort(19, 1, 5, ("A", "E")), processes=2)
    assert (tmp_path / "more" / "tiles.csv").read_bytes() == (folder / "tiles.csv").read_bytes()
    for path in folder.glob("tiles/*/*.png"):
        other = tmp_path / "more" / path.relative_to(folder)
        with Image.open(path) as one, Image.open(other) as two:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    (slide,) = read_dataset(tmp_path / "more", CARD).slides
    assert (tmp_path / "more" / slide.path).stat().st_size > 1_000_000


def test_a_card_with_other_classes_is_refused():
    card = CARD.model_copy(update={"classes": ("normal", "tumour"), "malignant": ("tumour",)})
    with pytest.raises(UsageError, match="no_lesion"):
        write_cohort(None, card, Cohort(2, 0, 1, ("A",)), processes=1)


def test_it_takes_an_empty_folder_and_leaves_nothing_when_it_fails(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "slide.svs").write_text("mine")
    with pytest.raises(UsageError, match="mine exists and is no data set"):
        write_cohort(tmp_path / "mine", CARD, Cohort(2, 0, 1, ("A",)), processes=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "slide.svs"]
