"""Data sets on disk: every cell is read as it was written, and one that cannot be true is named by line and column."""

import json
from dataclasses import replace

import pytest
from datasets_for_tests import HEADER, ROWS, SLIDES, lesion_card, write_by_hand, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.datasets.checks import SplitCell, require_whole_split
from melanoma_infer.datasets.table import LabelledSlide, LabelledTile, read_dataset, write_dataset
from melanoma_infer.errors import DatasetError, UsageError

CARD = lesion_card()
FIRST = LabelledTile(
    tile="tiles/s1/a.png",
    slide="s1",
    case_id="P1",
    x_l0=1024,
    y_l0=-512,
    um_per_px=80.0,
    label="melanoma",
    breslow_mm=1.031,
    surface_in_tile=True,
    values={"age": "63", "sex": "female"},
    outcome=True,
    split="train",
)


def test_every_cell_is_read_as_it_was_written(tmp_path):
    found = read_dataset(write_by_hand(tmp_path, *ROWS, slides=SLIDES), CARD)
    assert (found.domain, found.origin, found.tile_px, found.um_per_px) == ("tissue", "Drawn by hand.", 16, 80.0)
    first, second, third = found.tiles
    assert first == FIRST
    assert (second.label, second.x_l0, second.breslow_mm, second.surface_in_tile) == ("malignant", None, None, None)
    assert (second.um_per_px, second.outcome) == (82.0, None)
    assert (third.slide, third.values, third.outcome) == ("", {"age": "", "sex": "male"}, False)
    assert found.slides == (LabelledSlide("s1", "s1.svs", "P1", "malignant", "train"),)


def test_what_is_written_is_read_back_and_the_file_is_the_one_written_by_hand(tmp_path):
    known = read_dataset(write_by_hand(tmp_path / "hand", *ROWS, slides=SLIDES), CARD)
    for name in ("a", "b"):
        write_picture(tmp_path / f"own/tiles/s1/{name}.png")
    write_picture(tmp_path / "own/tiles/c.png")
    (tmp_path / "own/s1.svs").write_bytes(b"")
    write_dataset(tmp_path / "own", known.tiles, CARD, domain="tissue", origin="Drawn by hand.", slides=known.slides)
    for name in ("tiles.csv", "slides.csv"):
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "hand" / name).read_bytes()
    assert replace(read_dataset(tmp_path / "own", CARD), folder=known.folder) == known
    facts = json.loads((tmp_path / "own/dataset.json").read_text())
    assert facts["counts"] == {"train": {"melanoma": 1, "malignant": 1}, "validation": {"normal": 1}}


def test_a_file_that_a_spreadsheet_saved_is_read_the_same(tmp_path):
    write_by_hand(tmp_path, *ROWS)
    text = "\n".join((HEADER.upper(), *ROWS)).replace(",", ";").replace("1.031", "1,031").replace(";train", ";Train")
    (tmp_path / "tiles.csv").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert read_dataset(tmp_path, CARD).tiles[0] == FIRST


def test_a_table_without_the_column_mask_is_read(tmp_path):
    write_by_hand(tmp_path, *(row.removesuffix(",") for row in ROWS), header=HEADER.removesuffix(",mask"))
    assert [tile.mask for tile in read_dataset(tmp_path, CARD).tiles] == [None] * 3


def test_a_card_with_fewer_patient_fields_reads_the_same_file(tmp_path):
    card = lesion_card(patient_fields=[])
    assert read_dataset(write_by_hand(tmp_path, *ROWS), card).tiles[0].values == {}


def changed(row, column, value):
    cells = ROWS[row].split(",")
    cells[HEADER.split(",").index(column)] = value
    return [*ROWS[:row], ",".join(cells), *ROWS[row + 1 :]]


@pytest.mark.parametrize(
    ("row", "column", "value", "says"),
    [
        (0, "class", "melanom", "'melanom' is no class of the card. Give normal, naevus, melanoma, melanoma_in_s"),
        (2, "age", "old one", "'old one' is not allowed. Give a number from 0 to 120, young, old or unknown."),
        (2, "age", "1953-04-01", "'1953-04-01' is a date. Give the age in years"),
        (0, "sex", "x", "'x' is not allowed. Give female, male or unknown."),
        (0, "breslow_mm", "-0.1", "-0.1 is no thickness above 0 and up to 100 mm"),
        (0, "breslow_mm", "0", "0 is no thickness above 0 and up to 100 mm"),
        (0, "breslow_mm", "1500", "1500 is no thickness above 0 and up to 100 mm"),
        (2, "breslow_mm", "1.2", "1.2 mm is the thickness of a melanoma, but the class is normal."),
        (1, "surface_in_tile", "yes", "it is yes, but breslow_mm is blank. Give the thickness, or leave both blank."),
        (0, "breslow_mm", "thin", "'thin' is not allowed. Give a thickness in mm, or nothing."),
        (0, "surface_in_tile", "maybe", "'maybe' is not allowed. Give yes, no, or nothing."),
        (0, "x_l0", "10.5", "'10.5' is not allowed. Give a whole number of pixels, or nothing."),
        (0, "y_l0", "", "it is blank, but the other coordinate is not. Give both."),
        (0, "um_per_px", "", "it is blank. Give µm per pixel."),
        (0, "um_per_px", "0", "0 differs from the card's 80 µm/px by more than 5%"),
        (0, "um_per_px", "84.1", "84.1 differs from the card's 80 µm/px by more than 5%"),
        (0, "um_per_px", "75.9", "75.9 differs from the card's 80 µm/px by more than 5%"),
        (0, "outcome", "no", "it is no, but the class melanoma says the opposite"),
        (0, "case_id", "", "it is blank. Give the patient's id"),
        (0, "case_id", "n/a", "it is blank. Give the patient's id"),
        (0, "case_id", "P\a1", r"'P\\x071' has a space at an end, a line break or another control character"),
        (0, "tile", "", "it is blank. Fill it in, or remove the tile."),
        (0, "tile", "../a.png", "'../a.png' is not a path inside the data set"),
        (0, "tile", "tiles/none.png", "tiles/none.png does not exist"),
        (1, "tile", "tiles/s1/a.png", "tiles/s1/a.png is in line 2, too. Keep one of them."),
        (1, "split", "", "it is blank, but line 2 of tiles.csv has train. Give train, validation or test in every row"),
        (1, "split", "dev", "'dev' is not allowed. Give train, validation, test, or nothing in any row."),
        (1, "split", "test", "case P1 is in test here and in train in line 2 of tiles.csv"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_true_is_named_by_line_and_column(tmp_path, row, column, value, says):
    write_by_hand(tmp_path, *changed(row, column, value))
    with pytest.raises(DatasetError, match=f"^Line {row + 2} of tiles.csv, column {column}: {says}") as caught:
        read_dataset(tmp_path, CARD)
    assert caught.value.exit_code == 15


@pytest.mark.parametrize(
    ("row", "name", "says"),
    [
        (2, "tiles/mask.png", "a tile of class normal shows no lesion. Leave it blank, or correct the class."),
        (0, "../mask.png", "'../mask.png' is not a path inside the data set"),
        (0, "tiles/none.png", "tiles/none.png does not exist"),
        (0, "tiles/small.png", "tiles/small.png has 15 × 15 pixels"),
        (0, "tiles/c.png", "tiles/c.png is PNG with RGB pixels. Save it as PNG, black, and white where the lesion is."),
    ],
)
def test_a_mask_that_cannot_be_one_is_named(tmp_path, row, name, says):
    write_picture(tmp_path / "tiles/mask.png", mode="L")
    write_picture(tmp_path / "tiles/small.png", side=15, mode="1")
    rows = [ROWS[0], f"{ROWS[1]}tiles/mask.png", ROWS[2]]
    assert read_dataset(write_by_hand(tmp_path, *rows), CARD).tiles[1].mask == "tiles/mask.png"
    write_by_hand(tmp_path, *rows[:row], f"{ROWS[row]}{name}", *rows[row + 1 :])
    with pytest.raises(DatasetError, match=f"^Line {row + 2} of tiles.csv, column mask: {says}"):
        read_dataset(tmp_path, CARD)


def test_a_thickness_is_in_the_tile_only_if_the_tile_is_as_large(tmp_path):
    """A tile of 16 px at 80 µm is 1.28 mm wide: its diagonal is 1.81 mm."""
    rows = changed(0, "breslow_mm", "1.81")
    read_dataset(write_by_hand(tmp_path / "fits", *rows), CARD)
    rows = changed(0, "breslow_mm", "2")
    with pytest.raises(DatasetError, match=r"surface_in_tile: .* 2 mm is more than the tile's diagonal of 1.81"):
        read_dataset(write_by_hand(tmp_path / "not", *rows), CARD)


@pytest.mark.parametrize(
    ("side", "mode", "says"),
    [(15, "RGB", "has 15 × 15 pixels; the card's tiles have 16 × 16"), (16, "L", "is PNG with L pixels. Save it as")],
)
def test_a_picture_of_another_size_or_kind_is_named(tmp_path, side, mode, says):
    write_by_hand(tmp_path, *ROWS)
    write_picture(tmp_path / "tiles/c.png", side=side, mode=mode)
    with pytest.raises(DatasetError, match=f"^Line 4 of tiles.csv, column tile: tiles/c.png {says}"):
        read_dataset(tmp_path, CARD)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    write_by_hand(tmp_path, *ROWS)
    (tmp_path / "tiles/c.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DatasetError, match=r"tiles/c.png cannot be read as a picture. Give a PNG file"):
        read_dataset(tmp_path, CARD)


@pytest.mark.parametrize(
    ("slides", "says"),
    [
        (SLIDES.replace("train", "test"), r"Line 2 of slides.csv, column split: case P1 is in test here and in tr"),
        (SLIDES.replace("malignant", "bad"), r"Line 2 of slides.csv, column class: 'bad' is no class"),
        (SLIDES.replace("s1.svs", "s2.svs"), r"Line 2 of slides.csv, column path: s2.svs does not exist"),
        (SLIDES + "s1,s1.svs,P1,malignant,train\n", r"Line 3 of slides.csv, column slide: s1 is in line 2, too"),
        ("slide,path,case_id,split\n", r"slides.csv has no column `class`. Add it"),
    ],
)  # fmt: skip
def test_a_slide_that_cannot_be_true_is_named_by_line_and_column(tmp_path, slides, says):
    with pytest.raises(DatasetError, match=says):
        read_dataset(write_by_hand(tmp_path, *ROWS, slides=slides), CARD)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"format": 2}, r"dataset.json: format: Input should be 1"),
        ({"more": 1}, r"dataset.json: more: Extra inputs are not permitted"),
        ({"domain": "mice"}, r"dataset.json: domain: Input should be 'tissue' or 'phantom'"),
        ({"tile_px": 32}, r"dataset.json: tiles of 32 px at 80 µm/px are not the card's of 16 px at 80 µm/px"),
        ({"um_per_px": 84.1}, r"dataset.json: tiles of 16 px at 84.1 µm/px are not the card's"),
    ],
)
def test_facts_that_are_not_the_card_s_are_named(tmp_path, facts, says):
    with pytest.raises(DatasetError, match=says):
        read_dataset(write_by_hand(tmp_path, *ROWS, **facts), CARD)


def test_a_missing_file_or_column_and_an_empty_table_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"has no dataset.json that can be read .No such file"):
        read_dataset(tmp_path, CARD)
    write_by_hand(tmp_path, *ROWS)
    (tmp_path / "tiles.csv").unlink()
    with pytest.raises(DatasetError, match=r"^tiles.csv cannot be read .No such file"):
        read_dataset(tmp_path, CARD)
    with pytest.raises(DatasetError, match=r"^Line 2 of tiles.csv has 1 column; the header has 14"):
        read_dataset(write_by_hand(tmp_path, "tiles/s1/a.png"), CARD)
    with pytest.raises(DatasetError, match=r"tiles.csv has no row below its header"):
        read_dataset(write_by_hand(tmp_path), CARD)
    with pytest.raises(DatasetError, match=r"tiles.csv has no column `age`. Add it; leave its cells blank"):
        read_dataset(write_by_hand(tmp_path, *ROWS, header=HEADER.replace("age", "years")), CARD)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_file_that_was_damaged_anywhere_is_read_or_refused_by_name(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    write_by_hand(folder, *ROWS, slides=SLIDES)
    path = folder / data.draw(st.sampled_from(["tiles.csv", "slides.csv", "dataset.json"]))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, 12))
    path.write_bytes(content[:at] + data.draw(st.binary(max_size=6) | st.just(b"9" * 400)) + content[at + length :])
    error = None
    try:
        read_dataset(folder, CARD)
    except DatasetError as caught:
        error = caught
    assert error is None or ".csv" in str(error) or "dataset.json" in str(error)


def test_what_would_not_be_read_is_not_written(tmp_path):
    with pytest.raises(DatasetError, match=r"Line 2 of tiles.csv, column tile: tiles/s1/a.png does not exist"):
        write_dataset(tmp_path, [FIRST], CARD, domain="tissue", origin="x")
    assert list(tmp_path.iterdir()) == []


def test_a_patient_field_with_the_name_of_another_column_is_refused(tmp_path):
    card = lesion_card(patient_fields=[{"name": "outcome", "values": ["good"]}])
    with pytest.raises(UsageError, match=r"patient field outcome has the name of a column of tiles.csv"):
        read_dataset(write_by_hand(tmp_path, *ROWS), card)


def test_a_set_without_splits_is_counted_whole(tmp_path):
    rows = [row.rsplit(",", 2)[0] + ",," for row in ROWS]
    found = read_dataset(write_by_hand(tmp_path, *rows), CARD)
    assert [tile.split for tile in found.tiles] == [None] * 3
    write_dataset(tmp_path, found.tiles, CARD, domain="phantom", origin="Drawn.")
    facts = json.loads((tmp_path / "dataset.json").read_text())
    assert facts["counts"] == {"all": {"normal": 1, "melanoma": 1, "malignant": 1}}
    assert read_dataset(tmp_path, CARD).domain == "phantom"


@pytest.mark.parametrize("other", ["muller-ä", "Muller-a\u0308"])
def test_a_case_whose_id_is_written_in_two_ways_is_in_one_split(other):
    cells = [SplitCell("tiles.csv", 2, "Muller-ä", "train"), SplitCell("tiles.csv", 3, other, "test")]
    with pytest.raises(DatasetError, match="is in test here and in train as Muller-ä in line 2"):
        require_whole_split(cells)
