"""Ready-made tiles: taken as they are, or refused with what to do; never resized, and never guessed."""

import os
import re

import numpy as np
import pytest
from datasets_for_tests import lesion_card, write_picture
from PIL import Image
from slides_for_tests import noise, solid, write_image

from melanoma_infer.datasets.checks import picture_problem
from melanoma_infer.datasets.class_names import class_names
from melanoma_infer.datasets.making import Recipe, from_tiles
from melanoma_infer.datasets.ready_made import picture, tiles_of_folders, tiles_of_masks, tiles_of_table
from melanoma_infer.errors import DatasetError, UsageError

CARD = lesion_card()
NAMES = class_names(["Tumour=melanoma"], ["Blur"], CARD)
CASE = re.compile(r"^(P\d+)_")


def table(folder, text, um_per_px=80.0):
    (folder / "mine.csv").write_text(text, encoding="utf-8")
    return list(tiles_of_table(folder / "mine.csv", CARD, um_per_px=um_per_px))


def test_three_columns_are_enough_and_pixels_stay_as_they_are(tmp_path):
    pixels = noise(16, 16, 4)
    (tmp_path / "sub").mkdir()
    write_image(tmp_path / "sub" / "a.png", pixels)
    write_image(tmp_path / "b.bmp", pixels[::-1])
    first, second = table(tmp_path, "tile;case_id;class\nsub\\a.png;P1;Melanoma\nb.bmp;P2;malignant\n")
    assert (first.row.tile, first.row.case_id, first.row.label) == ("tiles/melanoma/a.png", "P1", "melanoma")
    assert (second.row.tile, second.row.label, second.row.um_per_px) == ("tiles/malignant/b.png", "malignant", 80.0)
    assert (second.row.values, second.row.split, second.row.outcome) == ({"age": "", "sex": ""}, None, None)
    assert np.array_equal(first.pixels, pixels)
    assert np.array_equal(second.pixels, pixels[::-1])


def test_a_mask_is_taken_with_its_tile(tmp_path):
    write_image(tmp_path / "a.png", noise(16, 16, 4))
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 2:5] = 255
    write_image(tmp_path / "m.png", mask)
    text = "tile,case_id,class,mask\na.png,P1,melanoma,m.png\n"
    (tile,) = table(tmp_path, text)
    assert tile.lesion is not None
    assert np.array_equal(tile.lesion, mask > 0)
    made = from_tiles([tile], Recipe(CARD, tmp_path / "data"))
    assert made.tiles[0].mask == "tiles/melanoma/a-lesion.png"
    with Image.open(tmp_path / "data" / made.tiles[0].mask) as written:
        assert np.array_equal(np.asarray(written), mask > 0)
    write_image(tmp_path / "m.png", noise(16, 16, 5))
    with pytest.raises(DatasetError, match=r"Line 2 of mine.csv, column mask: The mask of a.png is \d+% grey"):
        table(tmp_path, text)


def test_every_column_of_tiles_csv_is_taken(tmp_path):
    write_picture(tmp_path / "a.png")
    header = "tile,slide,case_id,x_l0,y_l0,um_per_px,class,breslow_mm,surface_in_tile,age,sex,outcome,split"
    (tile,) = table(tmp_path, f"{header}\na.png,s,P1,4,5,81,malignant,0.5,yes,63,F,no,test\n")
    row = tile.row
    assert (row.slide, row.x_l0, row.y_l0, row.um_per_px) == ("s", 4, 5, 81.0)
    assert (row.breslow_mm, row.surface_in_tile, row.outcome, row.split) == (0.5, True, False, "test")
    assert row.values == {"age": "63", "sex": "F"}


def test_equal_names_in_different_folders_stay_apart(tmp_path):
    for name in ("x/a.png", "y/a.png", "y/A.jpg"):
        write_picture(tmp_path / name)
    tiles = table(tmp_path, "tile,case_id,class\nx/a.png,1,normal\ny/a.png,2,normal\ny/A.jpg,3,normal\n")
    assert [tile.row.tile for tile in tiles] == [f"tiles/normal/{name}.png" for name in ("a", "a-2", "A-3")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tile,class\na.png,normal", "mine.csv has no column `case_id`"),
        ("case_id,class\n1,normal", "mine.csv has no column `tile`"),
        (
            "tile,case_id,class,um_per_px\na.png,1,normal,90",
            "Line 2 of mine.csv, column um_per_px: 90 differs from",
        ),
        ("tile,case_id,class\n\nnone.png,1,normal", "Line 3 of mine.csv, column tile: none.png does not exist"),
        ("tile,case_id,class\na.png,1,cancer", "Line 2 of mine.csv, column class: 'cancer' is no class of the card"),
        ("tile,case_id,class\na.png,,normal", "Line 2 of mine.csv, column case_id: it is blank"),
        ("tile,case_id,class,age\na.png,1,normal,x", "Line 2 of mine.csv, column age: 'x' is not allowed"),
        ("tile,case_id,class\nlarge.png,1,normal", "large.png has 32 × 32 pixels; the card's tiles have 16 × 16"),
        ("tile,case_id,class\nmine.csv,1,normal", "mine.csv cannot be read as a picture"),
        ("tile,case_id,class\ndeep.png,1,normal", "deep.png has I;16 pixels or is transparent. Save it"),
        ("tile,case_id,class\nclear.png,1,normal", "clear.png has RGBA pixels or is transparent"),
        (
            "tile,case_id,class,split\na.png,1,normal,train\na.png,2,normal,test\n\na.png,2,normal,train",
            "Line 5 of mine.csv, column split: case 2 is in train here and in test in line 3 of mine.csv",
        ),
        (
            "tile,case_id,class,split\na.png,1,normal,\na.png,2,normal,test",
            "Line 2 of mine.csv, column split: it is blank, but line 3 of mine.csv has test",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named_as_the_user_s_file_has_it(tmp_path, text, says):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "large.png", side=32)
    write_picture(tmp_path / "clear.png", mode="RGBA")
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DatasetError, match=says):
        table(tmp_path, f"{text}\n")


def test_the_scale_is_stated_once_at_least(tmp_path):
    write_picture(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"mine.csv has no column `um_per_px`. Add it, or give .* with --mpp"):
        table(tmp_path, "tile,case_id,class\na.png,1,normal\n", um_per_px=None)
    with pytest.raises(DatasetError, match=r"Line 2 of mine.csv, column um_per_px: it is blank"):
        table(tmp_path, "tile,case_id,class,um_per_px\na.png,1,normal,\n", um_per_px=None)


def folders(folder, case_from=CASE, um_per_px=80.0, names=NAMES):
    return list(tiles_of_folders(folder, names, CARD, um_per_px=um_per_px, case_from=case_from))


def test_folders_are_classes_and_names_say_whose_tile_it_is(tmp_path):
    for name in ("Tumour/P1_a.png", "Tumour/deep/P2_b.jpg", "normal/P1_c.png", "Blur/P9_x.png", ".cache/d.png"):
        write_picture(tmp_path / name)
    rows = [tile.row for tile in folders(tmp_path)]
    assert [(row.tile, row.case_id, row.label) for row in rows] == [
        ("tiles/melanoma/P1_a.png", "P1", "melanoma"),
        ("tiles/melanoma/P2_b.png", "P2", "melanoma"),
        ("tiles/normal/P1_c.png", "P1", "normal"),
    ]
    assert [tile.row.case_id for tile in folders(tmp_path, None)] == ["P1_a", "P2_b", "P1_c"]
    assert [tile.row.case_id for tile in folders(tmp_path, re.compile(r"P\d"))] == ["P1", "P2", "P1"]


def test_a_folder_that_is_no_class_and_a_name_without_a_case_are_refused(tmp_path):
    write_picture(tmp_path / "Tumour/x.png")
    with pytest.raises(DatasetError, match=r"x.png: --case-from .* finds no case in the name"):
        folders(tmp_path)
    with pytest.raises(UsageError, match=r"--mpp: 90 differs from the card's 80 µm/px"):
        folders(tmp_path, um_per_px=90)
    write_picture(tmp_path / "odd/x.png")
    with pytest.raises(UsageError, match=r'these classes are: odd \(1\). Give --class "odd=CLASS" with one of'):
        folders(tmp_path)
    (tmp_path / "odd/x.png").unlink()
    with pytest.raises(DatasetError, match="odd holds no pictures"):
        folders(tmp_path, None, names=class_names(["odd=normal"], ["Tumour"], CARD))
    with pytest.raises(DatasetError, match="Tumour holds no folders"):
        folders(tmp_path / "Tumour")


def masked(tmp_path, mask, card=CARD, um_per_px=80.0):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir(exist_ok=True)
    write_image(tmp_path / "images" / "P1_a.png", noise(40, 36))
    write_image(tmp_path / "masks" / "P1_a.png", mask)
    return list(tiles_of_masks(tmp_path / "images", tmp_path / "masks", card, um_per_px=um_per_px, case_from=CASE))


def test_a_mask_decides_by_its_share_of_each_square(tmp_path):
    """A picture of 40 × 36 px has 2 × 2 squares of 16 px: all, more than half, half, and none of them white."""
    mask = np.zeros((36, 40), np.uint8)
    mask[:16, :16] = 255
    mask[:16, 16:25] = 255  # 9 of 16 columns
    mask[16:24, :16] = 255  # 8 of 16 rows
    one, two, half, none = masked(tmp_path, mask, lesion_card(malignant=["melanoma", "melanoma_in_situ"]))
    assert half is None
    assert [(tile.row.tile, tile.row.case_id, tile.row.label) for tile in (one, two, none)] == [
        ("tiles/malignant/P1_a_x0_y0.png", "P1", "malignant"),
        ("tiles/malignant/P1_a_x16_y0.png", "P1", "malignant"),
        ("tiles/normal/P1_a_x16_y16.png", "P1", "normal"),
    ]
    assert np.array_equal(two.pixels, noise(40, 36)[:16, 16:32])


def test_a_photograph_is_no_mask(tmp_path):
    with pytest.raises(DatasetError, match=r"The mask of P1_a.png is 64% grey"):
        masked(tmp_path, noise(40, 36))


def test_a_pipe_or_a_folder_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(DatasetError, match=rf"{name} is no file"):
            picture(tmp_path / name, 16)
        assert picture_problem(tmp_path / name, 16) == "is no file. Correct the path, or remove the line."


def test_one_malignant_class_is_the_masks_class(tmp_path):
    card = lesion_card(classes=["normal", "melanoma"], malignant=["melanoma"], outcome=None)
    first, *_ = masked(tmp_path, np.full((36, 40), 255, np.uint8), card)
    assert first.row.label == "melanoma"


def test_a_mask_that_is_missing_or_of_another_size_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"P1_a.png and its mask have different sizes"):
        masked(tmp_path, np.zeros((36, 36), np.uint8))
    write_image(tmp_path / "images" / "P2_b.png", solid(40, 40))
    with pytest.raises(DatasetError, match=r"P2_b.png has no mask of that name in masks"):
        masked(tmp_path, np.zeros((36, 40), np.uint8))
    write_image(tmp_path / "images" / "P2_b.png", solid(40, 12))
    write_image(tmp_path / "masks" / "P2_b.png", solid(40, 12))
    with pytest.raises(DatasetError, match=r"P2_b.png is smaller than a tile of 16 px"):
        masked(tmp_path, np.zeros((36, 40), np.uint8))


@pytest.mark.parametrize(
    ("pairs", "ignored", "says"),
    [
        (
            ["Tumour"],
            [],
            '--class "Tumour": give NAME=CLASS with one of normal, naevus, melanoma, melanoma_in',
        ),
        (["Tumour=cancer"], [], '--class "Tumour=cancer": give NAME=CLASS'),
        (["=melanoma"], [], '--class "=melanoma": give NAME=CLASS'),
        (["A=melanoma", "a=naevus"], [], "The class a is named more than once"),
        (["A=melanoma"], ["A"], "The class A is named more than once"),
    ],
)
def test_a_name_means_one_class_of_the_card(pairs, ignored, says):
    with pytest.raises(UsageError, match=says):
        class_names(pairs, ignored, CARD)


def test_names_are_compared_without_case_and_a_class_of_the_card_needs_no_name():
    names = class_names(["Tumor: Deep = In situ=melanoma_in_situ", "TUMOR=malignant"], ["fold"], CARD)
    found = names.labels(["tumor", "Tumor: deep = in situ", "Fold", "Naevus", "melanoma in situ"])
    assert list(found.values()) == ["malignant", "melanoma_in_situ", None, "naevus", "melanoma_in_situ"]
    with pytest.raises(UsageError, match=r"these classes are: Necrosis \(2\), Unclassified \(1\)"):
        names.labels(["Necrosis", "tumor", "Necrosis", "Unclassified"])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("P2,melanoma", "of case P1, and as tiles/melanoma/b.png of case P2"),
        ("P1,normal", "tiles/normal/b.png of case P1"),
    ],
)
def test_a_picture_of_two_patients_or_classes_is_refused(tmp_path, second, message):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, noise(16, 16, 4))
    tiles = table(tmp_path, f"tile,case_id,class\na.png,P1,melanoma\nb.png,{second}\n")
    with pytest.raises(DatasetError, match=message):
        from_tiles(tiles, Recipe(CARD, tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_picture_that_is_there_twice_is_taken_once_and_counted(tmp_path):
    write_image(tmp_path / "a.png", noise(16, 16, 4))
    twice = table(tmp_path, "tile,case_id,class\na.png,P1,melanoma\na.png,P1,melanoma\n")
    made = from_tiles(twice, Recipe(CARD, tmp_path / "data"))
    assert (len(made.tiles), dict(made.left_out)) == (1, {"a second time": 1})
