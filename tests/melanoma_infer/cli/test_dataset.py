"""`mminfer dataset`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets_for_tests import breslow, feature, polygon, square, write_geojson, write_picture
from PIL import Image
from slides_for_tests import EOSIN, noise, solid, write_svs

from melanoma_infer.cli.dataset import CAUTION
from melanoma_infer.datasets.table import read_dataset
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.write import write_phantom
from mminfer_export.card_toml import read_card

CARD = """
name = "mine"
classes = ["normal", "naevus", "melanoma", "melanoma_spread"]
malignant = ["melanoma", "melanoma_spread"]
tile_px = 32
um_per_px = 4.0
mean = [0.7, 0.5, 0.6]
std = [0.2, 0.25, 0.2]
resize = "reduce-bilinear"
outputs = ["features"]
[outcome]
name = "spread"
classes = ["melanoma_spread"]
[[patient_fields]]
name = "age"
values = ["young", "old"]
edges = [50.0]
"""
TUMOR = feature(polygon(square(512, 512, 256)), "Tumor")
NAEVUS = feature(polygon(square(512, 256, 300)), "Naevus")
MANIFEST = """slide,case_id,age,breslow_mm,outcome
a.svs,P1,63,0.05,yes
b.svs,P1,63,,yes
c.svs,P2,,,no
d.svs,P3,41,,
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four slides of pink tissue, three of them annotated, a manifest and a card."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate("abcd"):
        pixels = solid(1536, 1280, EOSIN) - noise(1536, 1280, seed) // 16
        write_svs(folder / f"{name}.svs", pixels)
    write_geojson(folder / "drawn/a.geojson", TUMOR, breslow([560, 560], [620, 640]))
    write_geojson(folder / "drawn/b.svs.geojson", TUMOR, feature(polygon(square(100, 100, 50)), "Artefact"))
    write_geojson(folder / "drawn/c.geojson", NAEVUS)
    write_geojson(folder / "drawn/d.geojson")
    (folder / "cases.csv").write_text(MANIFEST)
    (folder / "card.toml").write_text(CARD)
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """Links to them, in the current folder."""
    for name in ("a.svs", "b.svs", "c.svs", "d.svs", "card.toml"):
        (tmp_path / name).symlink_to(made / name)
    shutil.copytree(made / "drawn", tmp_path / "drawn")
    shutil.copy(made / "cases.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


CUT = ("dataset", "--patients", "cases.csv", "--annotations", "drawn", "--card", "card.toml", "--out", "data",
       "--class", "Tumor=malignant", "--ignore", "Artefact", "--background", "3")  # fmt: skip


def names_in(place):
    """The names in the folder, to compare."""
    return sorted(path.name for path in place.iterdir())


def test_annotated_slides_become_a_data_set_that_training_reads(mminfer, place):
    ended = mminfer(*CUT, "--split", "64,16,20")
    assert ended.code == 0, ended.err
    found = read_dataset(place / "data", read_card(place / "card.toml"))
    tiles = {name: [tile for tile in found.tiles if tile.slide == name] for name in "abcd"}
    assert {name: [tile.label for tile in own] for name, own in tiles.items()} == {
        "a": ["malignant", "normal", "normal", "normal"],
        "b": ["malignant", "normal", "normal", "normal"],
        "c": ["naevus"] * 4 + ["normal"] * 3,
        "d": ["normal"] * 3,
    }
    first = tiles["a"][0]  # it holds the line of 60 × 80 px of 0.5 µm
    assert (first.x_l0, first.y_l0, first.breslow_mm, first.surface_in_tile) == (512, 512, 0.05, True)
    assert [tiles[name][0].outcome for name in "abcd"] == [True, True, False, None]
    assert [tiles[name][0].values for name in "abcd"] == [{"age": "63"}, {"age": "63"}, {"age": ""}, {"age": "41"}]
    assert {(slide.slide, slide.label, slide.case_id) for slide in found.slides} == {
        ("a", "malignant", "P1"), ("b", "malignant", "P1"), ("c", "naevus", "P2"), ("d", "normal", "P3"),
    }  # fmt: skip
    assert sorted(tile.split for tile in found.tiles if tile.case_id == "P1") == [first.split] * 8
    assert "class      train  validation  test" in ended.out
    assert ended.out.strip().endswith("data/contact-sheet.png")
    assert "1 of 4 a: 4 tiles" in ended.err
    with Image.open("data/contact-sheet.png") as sheet:
        assert sheet.width > 1500


def test_the_same_command_gives_the_same_bytes(mminfer, place):
    assert mminfer(*CUT, "--split", "64,16,20").code == 0
    first = {path.relative_to("data"): path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    assert mminfer(*CUT, "--split", "64,16,20", "--overwrite").code == 0
    again = {path.relative_to("data"): path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    assert first == again
    assert sum(path.name.endswith("-lesion.png") for path in first) == 6
    assert len(first) == 18 + 6 + 4


def test_a_line_that_is_not_as_long_as_the_report_says_is_named(mminfer, place):
    Path("cases.csv").write_text(MANIFEST.replace("0.05", "0.5"))
    ended = mminfer(*CUT)
    assert "a: The longest line named Breslow is 0.05 mm long, and the manifest says 0.5 mm" in ended.err


def test_an_annotation_that_reaches_beyond_its_slide_is_named(mminfer, place):
    write_geojson(place / "drawn/c.geojson", feature(polygon(square(1280, 512, 600)), "Naevus"))
    ended = mminfer(*CUT)
    assert "warning: c: c.geojson, feature 1 reaches 0.17 mm beyond the slide." in ended.err
    assert ended.err.count("beyond the slide") == 1


def test_a_card_for_drawings_is_named_and_one_for_tissue_is_not(mminfer, place):
    assert CAUTION not in mminfer(*CUT).err
    Path("drawings.toml").write_text('domain = "phantom"\n' + CARD)
    assert CAUTION in mminfer(*CUT, "--card", "drawings.toml", "--overwrite").err


def test_without_a_manifest_slides_are_patients_and_it_is_said(mminfer, place):
    argv = [each for each in CUT if each not in ("--patients", "cases.csv")]
    ended = mminfer(*argv, "a.svs", "b.svs", "--json")
    assert "each slide counts as a patient of its own" in ended.err
    result = json.loads(ended.out)
    assert (result["tiles"], result["slides"], result["cases"]) == (8, 2, 2)
    assert result["counts"] == {"all": {"normal": 6, "malignant": 2}}


def test_without_background_only_what_is_drawn_is_claimed(mminfer, place):
    ended = mminfer(*CUT, "--background", "0", "--origin", "Drawn for a test.")
    assert "No tile is of class normal" in ended.err
    found = read_dataset(place / "data", read_card(place / "card.toml"))
    assert (len(found.tiles), found.slides, found.origin) == (6, (), "Drawn for a test.")


def test_two_slides_of_one_name_need_ids(mminfer, place):
    (place / "more").mkdir()
    (place / "c.svs").rename(place / "more" / "a.svs")
    argv = ("dataset", "a.svs", "more/a.svs", "--annotations", "drawn", "--card", "card.toml", "--out", "data",
            "--class", "Tumor=malignant")  # fmt: skip
    ended = mminfer(*argv)
    assert (ended.code, "Two slides are called a. Give each an id" in ended.err) == (2, True)
    Path("ids.csv").write_text("slide,id,case_id\na.svs,a,P1\nmore/a.svs,b,P2\n")
    assert mminfer(*argv, "--patients", "ids.csv").code == 0
    assert sorted(path.name for path in Path("data/tiles").iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda: Path("drawn/c.geojson").unlink(), 15, "c.svs has no annotations: there is neither c.geojson nor"),
        (lambda: Path("drawn/c.geojson").write_text("{"), 15, "c.geojson is not JSON"),
        (lambda: write_geojson(Path("drawn/c.geojson"), feature(NAEVUS["geometry"], "Fold")), 2, "Fold (1)"),
        (lambda: write_geojson(Path("drawn/c.geojson"), feature(polygon(square(9999, 0, 9)), "Tumor")), 15,
         "c: c.geojson, feature 1 is not on the slide of 1536 × 1280 pixels"),
        (lambda: Path("cases.csv").write_text(MANIFEST.replace("c.svs,P2", "c.svs,")), 15,
         "Line 4 of the manifest, column case_id: it is blank"),
        (lambda: Path("cases.csv").write_text(MANIFEST.replace("41", "old one")), 13,
         "Line 5 of the manifest, column age: 'old one' is not allowed"),
        (lambda: Path("cases.csv").write_text(MANIFEST.replace("0.05", "50 µm")), 15,
         "Line 2 of the manifest, column breslow_mm: '50 µm' is not allowed"),
        (lambda: Path("cases.csv").write_text("slide,case_id,split\na.svs,P1,train\nb.svs,P1,test\n"), 15,
         "Line 3 of the manifest, column split: case P1 is in test here and in train in line 2 of the manifest"),
        (lambda: Path("d.svs").unlink() or shutil.copy("c.svs", "d.svs"), 15, "The same bytes are in c.svs, d.svs"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_and_nothing_is_written(mminfer, place, change, code, says):
    change()
    before = names_in(place)
    ended = mminfer(*CUT)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert names_in(place) == before


def test_a_slide_that_is_damaged_halfway_is_named_and_nothing_is_written(mminfer, place):
    content = (place / "d.svs").read_bytes()
    (place / "d.svs").unlink()
    (place / "d.svs").write_bytes(content[: len(content) // 2])
    before = names_in(place)
    ended = mminfer(*CUT)
    assert ended.code == 10
    assert "mminfer: d: " in ended.err
    assert names_in(place) == before


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ((), "Give annotated slides (SLIDES --annotations DIR), or ready-made tiles (--tiles PATH)"),
        (("a.svs", "--annotations", "drawn", "--tiles", "x"), "Give annotated slides"),
        (("--annotations", "drawn"), "No slide was given"),
        (("a.svs", "--annotations", "drawn", "--masks", "m"), "--masks and --case-from are for ready-made tiles"),
        (("a.svs", "--annotations", "nowhere"), "--annotations nowhere: there is no such folder"),
        (("--patients", "split.csv", "--annotations", "drawn", "--split", "64,16,20"), "the rows have a split already"),
        (("a.svs", "--tiles", "drawn"), "SLIDES and --patients are for annotated slides"),
        (("--tiles", "drawn"), "--mpp is missing"),
        (("--tiles", "drawn", "--mpp", "4,5"), "the pixels of a tile are square"),
        (("--tiles", "drawn", "--mpp", "4", "--case-from", "("), "--case-from is no regular expression"),
        (("--tiles", "cases.csv", "--mpp", "4", "--masks", "drawn"), "--tiles is a file"),
        (("a.svs", "--annotations", "drawn", "--split", "80,20"), "--split 80,20: give three percentages"),
        (("a.svs", "--annotations", "drawn", "--card", "none.toml"), "none.toml cannot be read"),
        (("a.svs", "--annotations", "drawn", "--out", "drawn"), "--out drawn exists and is no data set"),
    ],
)
def test_options_that_contradict_each_other_are_refused(mminfer, place, argv, says):
    Path("split.csv").write_text("slide,case_id,split\na.svs,P1,test\n")
    ended = mminfer("dataset", "--card", "card.toml", "--out", "data", *argv)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_ready_made_tiles_and_a_split_of_their_own(mminfer, place):
    for i in range(10):
        write_picture(place / f"tiles/naevus/P{i}_1.png", side=32)
    argv = ("dataset", "--tiles", "tiles", "--mpp", "4", "--card", "card.toml", "--out", "data", "--case-from", r"P\d")
    assert mminfer(*argv, "--split", "60,20,20").code == 0
    splits = [tile.split for tile in read_dataset(place / "data", read_card(place / "card.toml")).tiles]
    assert sorted(map(str, splits)) == ["test"] * 2 + ["train"] * 6 + ["validation"] * 2
    rows = "".join(f"tiles/naevus/P{i}_1.png,P{i},naevus,test\n" for i in range(10))
    Path("mine.csv").write_text(f"tile,case_id,class,split\n{rows}")
    argv = ("dataset", "--tiles", "mine.csv", "--mpp", "4", "--card", "card.toml", "--out", "more")
    ended = mminfer(*argv, "--split", "60,20,20")
    assert (ended.code, "--split: the rows have a split already" in ended.err) == (2, True)
    assert mminfer(*argv).code == 0
    assert {tile.split for tile in read_dataset(place / "more", read_card(place / "card.toml")).tiles} == {"test"}


def test_drawn_slides_make_a_data_set_of_phantoms(mminfer, place):
    write_phantom(place / "p.svs", make_scene(1, "melanoma", (2000.0, 1500.0)), 1.0)
    write_geojson(place / "drawn/p.geojson")
    ended = mminfer("dataset", "p.svs", "--annotations", "drawn", "--card", "card.toml", "--out", "data", "--json")
    assert json.loads(ended.out)["domain"] == "phantom"
    assert read_dataset(place / "data", read_card(place / "card.toml")).domain == "phantom"


def test_real_tiles_with_masks(mminfer, place, real_slides):
    camelyon = real_slides.parent / "tiles-camelyon" / "a"
    if not camelyon.is_dir():
        pytest.skip("no tiles-camelyon beside the real slides")
    Path("cam.toml").write_text(CARD.replace("4.0", "0.5").replace("tile_px = 32", "tile_px = 128"))
    ended = mminfer("dataset", "--tiles", camelyon / "images", "--masks", camelyon / "masks", "--mpp", "0.5", "--card",
                    "cam.toml", "--out", "data", "--json")  # fmt: skip
    result = json.loads(ended.out)
    assert result["cases"] == 32
    total = result["tiles"] + result["left_out"]["partly lesion"]
    assert total == 32 * 16
    name = min(path.name for path in Path("data/tiles/malignant").iterdir() if "lesion" not in path.name)
    stem, x, y = Path(name).stem.split("_")
    with Image.open(camelyon / "images" / f"{stem}.jpg") as whole, Image.open(f"data/tiles/malignant/{name}") as tile:
        box = (int(x[1:]), int(y[1:]), int(x[1:]) + 128, int(y[1:]) + 128)
        assert np.array_equal(np.asarray(whole.convert("RGB").crop(box)), np.asarray(tile))
