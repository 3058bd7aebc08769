"""The contents of the files, read back by the rules of other programs."""

from __future__ import annotations

import csv
import io
import json
import uuid
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.pipeline.flow import score_slide
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.reports import regions_geojson, result_json, tiles_csv, tiles_geojson, tiles_npz, words
from melanoma_infer.result import BoundsOut, Region, SlideResult
from melanoma_infer.settings import Settings

FORBIDDEN = ("negative", "clear", "safe", "low risk", "diagnos", "confiden", "✓", "✔", "✅")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SlideResult:
    """A plain image of 700 × 500 px at 0.5 µm/px, scored in tiles of 128 µm by the demo bundle."""
    path = tmp_path_factory.mktemp("slide") / "photo.png"
    pixels = np.full((500, 700, 3), 244, np.uint8)
    pixels[60:470, 40:640] = (150, 70, 130)
    Image.fromarray(pixels).save(path)
    settings = Settings(mpp_um=(0.5, 0.5), tile_um=128)
    return score_slide(path, Scorer(open_bundle("demo")), settings=settings, patient={"age": 50})


@pytest.mark.wheel
def test_the_schema_in_the_package_is_the_model_s():
    assert result_json.SCHEMA.read_bytes() == result_json.schema()


@pytest.mark.wheel
def test_a_result_fits_its_schema_and_comes_back_whole(result, tmp_path):
    written = result_json.render(result)
    jsonschema.validate(json.loads(written), json.loads(result_json.SCHEMA.read_text()))
    (tmp_path / "result.json").write_bytes(written)
    again = result_json.read(tmp_path / "result.json")
    assert again is not None
    assert again.model_dump() == result.model_dump()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema_version": "9"}', b"\xff\xfe"])
def test_a_file_that_this_version_did_not_write_gives_none(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    assert result_json.read(tmp_path / "result.json") is None


@pytest.mark.wheel
def test_tiles_csv_has_wsinfer_s_columns_first_and_the_tiles_numbers(result):
    text = tiles_csv.render(result).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    header = text.splitlines()[0].split(",")
    classes = [f"prob_{name}" for name in result.tiles.classes]
    assert header == [
        "minx",
        "miny",
        "width",
        "height",
        *classes,
        *["depth_mm", "status", "tissue_fraction", "padded_fraction"],
    ]
    assert len(rows) == len(result.tiles) == result.tiles_counted.ok
    for i, row in enumerate(rows):
        assert int(row["minx"]) == result.tiles.minx[i]
        assert float(row[classes[1]]) == pytest.approx(result.tiles.probabilities[i, 1], abs=5e-10)
        assert float(row["depth_mm"]) == pytest.approx(result.tiles.depth_mm[i], abs=5e-7)
    assert sum(float(rows[0][name]) for name in classes) == pytest.approx(1, abs=1e-8)


def test_tiles_geojson_follows_qupath_s_rules(result):
    collection = json.loads(tiles_geojson.render(result))
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == len(result.tiles)
    for i, feature in enumerate(collection["features"]):
        uuid.UUID(feature["id"])
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert np.ptp(np.array(ring), axis=0).tolist() == [result.tiles.width[i], result.tiles.height[i]]
        assert ring[0] == [result.tiles.minx[i], result.tiles.miny[i]]
        assert feature["properties"]["objectType"] == "tile"
        assert feature["properties"]["measurements"]["prob_no_lesion"] == result.tiles.probabilities[i, 0]
    assert len({feature["id"] for feature in collection["features"]}) == len(result.tiles)
    assert tiles_geojson.render(result) == tiles_geojson.render(result)


def test_both_geojson_files_begin_at_the_bounds_that_the_slide_names(result):
    slide = result.slide.model_copy(update={"bounds": BoundsOut(x=40, y=25, width=600, height=450)})
    region = Region(
        id="R1", area_mm2=0.1, diameter_mm=0.1, score=0.5, malignant_share=0.9, tissue_section=1,
        outline=[[140.25, 130.0], [240.0, 130.0], [240.0, 230.0], [140.25, 130.0]],
        holes=[[[200.0, 150.0], [210.0, 150.0], [210.0, 160.0], [200.0, 150.0]]], **{"class": "malignant"},
    )  # fmt: skip
    placed = result.model_copy(update={"slide": slide, "regions": [region]})
    shown = placed.carrying(result.tiles)
    features = [json.loads(tiles_geojson.render(each))["features"] for each in (result, shown)]
    for before, after in zip(*features, strict=True):
        moved = np.array(before["geometry"]["coordinates"]) - (40, 25)
        assert after["geometry"]["coordinates"] == moved.tolist()
        assert after["id"] == before["id"]
    (drawn,) = json.loads(regions_geojson.render(shown))["features"]
    outline, hole = drawn["geometry"]["coordinates"]
    assert outline == [[100.25, 105.0], [200.0, 105.0], [200.0, 205.0], [100.25, 105.0]]
    assert hole[0] == [160.0, 125.0]
    assert tiles_csv.render(shown) == tiles_csv.render(result)


def test_nan_is_written_as_text(result):
    tiles = result.tiles
    unreadable = type(tiles)(**{**vars(tiles), "probabilities": tiles.probabilities * np.nan})
    changed = result.model_copy().carrying(unreadable)
    text = tiles_geojson.render(changed).decode()
    assert '"prob_no_lesion": "NaN"' in text
    assert json.loads(text)  # a bare NaN is no JSON: allow_nan would have raised
    assert csv.DictReader(io.StringIO(tiles_csv.render(changed).decode())).__next__()["prob_no_lesion"] == ""


def test_tiles_npz_holds_the_arrays_without_pickles_and_the_same_bytes_twice(result):
    content = tiles_npz.render(result)
    assert content == tiles_npz.render(result)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        n = len(result.tiles)
        assert arrays["features"].shape == (n, 128)
        assert arrays["attention"].shape == (n, 16, 16)
        assert arrays["cam"].shape == (n, 3, 16, 16)
        assert np.array_equal(arrays["probabilities"], result.tiles.probabilities)
        assert np.array_equal(arrays["depth_mm"], result.tiles.depth_mm)
        # What rescore reads: the features and the head give the probabilities again, to the last bit.
        bundle = open_bundle("demo")
        from melanoma_infer.patients.patient import one_hot, strict_patient

        patient = one_hot(strict_patient({"age": 50}, bundle.card.patient_fields), bundle.card.patient_fields)
        assert bundle.head is not None
        assert np.array_equal(bundle.head.probabilities(arrays["features"], patient), arrays["probabilities"])


def test_no_sentence_makes_a_forbidden_promise(result):
    """Every sentence of the words module and of the verdict's reasons, against the words that must not occur."""
    package = Path(words.__file__).parent.parent
    sources = [package / "reports" / "words.py", package / "scoring" / "verdict.py"]
    for source in sources:
        text = source.read_text().lower()
        for word in FORBIDDEN:
            assert word not in text, (source.name, word)


def test_scores_have_two_decimals(result):
    suspected = result.model_copy(
        update={
            "verdict": "suspected",
            "malignant_score": 0.83444,
            "bundle": result.bundle.model_copy(update={"threshold": 0.62}),
        }
    )
    assert words.finding(suspected) == "Suspected melanoma in evaluable tissue (score 0.83, threshold 0.62)"


@pytest.mark.parametrize("noun", ["melanoma", "Merkel cell carcinoma"])
def test_a_result_suspects_and_does_not_exclude_what_its_model_looks_for(result, noun):
    model = result.bundle.model_copy(update={"finding": noun, "threshold": 0.62})
    named = result.model_copy(update={"bundle": model, "malignant_score": 0.7, "evaluable_fraction": 1.0})
    suspected, nothing = (
        words.finding(named.model_copy(update={"verdict": verdict})) for verdict in ("suspected", "not-detected")
    )
    assert suspected == f"Suspected {noun} in evaluable tissue (score 0.70, threshold 0.62)"
    assert nothing == f"No suspected region in 100 % evaluable tissue. This does not exclude {noun}."


def test_what_is_said_about_a_slide_names_no_disease_of_its_own():
    """The nouns come from the card: no text of the reports and the verdict holds one."""
    package = Path(words.__file__).parent.parent
    rooms = [path for room in ("reports", "scoring") for path in (package / room).iterdir() if path.is_file()]
    said = {path.name: path.read_text().replace("melanoma_infer", "").lower() for path in rooms}
    assert len(said) > 25
    assert [name for name, text in said.items() if "melanoma" in text] == []


def test_regions_are_counted_by_tissue_section_and_kind(result):
    def region(section: int, kind: str) -> Region:
        return Region.model_validate(
            {
                "id": "R1", "class": kind, "area_mm2": 1.0, "diameter_mm": 1.0, "score": 0.5, "malignant_share": 0.5,
                "outline": [], "tissue_section": section,
            }
        )  # fmt: skip

    regions = [region(2, "benign"), region(1, "benign"), region(1, "malignant"), region(1, "malignant")]
    counted = words.region_counts(result.model_copy(update={"regions": regions}))
    assert counted == "Tissue section 1: 2 malignant, 1 benign. Tissue section 2: 1 benign."
    many = [region(section, "malignant") for section in range(1, 16)]
    counted = words.region_counts(result.model_copy(update={"regions": [*many, region(15, "benign")]}))
    assert counted == "15 malignant, 1 benign on 15 tissue sections."
    assert words.region_counts(result.model_copy(update={"regions": []})) == ""


@pytest.mark.parametrize(("share", "said"), [(0.9499, "94 %"), (0.9999, "99 %"), (1.0, "100 %")])
def test_shares_are_rounded_down(result, share, said):
    found = result.model_copy(update={"verdict": "not-detected", "evaluable_fraction": share})
    assert words.finding(found) == f"No suspected region in {said} evaluable tissue. This does not exclude melanoma."
