"""A hospital's road: slides outlined in QuPath → a data set → a training → a bundle → the score of another slide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands_for_tests import run_main
from datasets_for_tests import breslow, feature, polygon, write_geojson

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.phantom.options import Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.write import truth_file, write_phantom

SIZE_UM = (6000.0, 4500.0)
UM_PER_PX = 1.1
MANIFEST = """slide,case_id,age,split
slides/s1.svs,P1,63,train
slides/s2.svs,P2,48,validation
slides/s3.svs,P3,71,test
"""
NETWORK = """
intended_use = "To be tested."
finding = "tumour"
tile_um = 2000.0
[network]
width = 4
[[patient_fields]]
name = "age"
values = ["under_50", "50_and_over"]
edges = [50.0]
"""


def slide(path: Path, seed: int) -> list[dict[str, object]]:
    """A slide with a melanoma at `path`; its outline and its thickness, as QuPath exports them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_phantom(path, make_scene(seed, "melanoma", SIZE_UM, Options(depth_mm=1.5, width_mm=2.5)), UM_PER_PX)
    (section,) = json.loads(truth_file(path).read_text())["sections"]
    ends = [[um / UM_PER_PX for um in section[name]] for name in ("surface_um", "deepest_um")]
    outlines = ([*outline, outline[0]] for outline in section["outlines_l0"])
    return [*(feature(polygon(ring), "Tumor") for ring in outlines), breslow(*ends)]


@pytest.mark.slow
def test_three_annotated_slides_become_a_model_that_scores_a_fourth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A tenth of the attempts at an int8 graph, which are tested elsewhere.
    monkeypatch.setattr("mminfer_export.precisions.KEPT_FLOAT", ())
    for number in (1, 2, 3):
        write_geojson(Path(f"geojson/s{number}.geojson"), *slide(Path(f"slides/s{number}.svs"), number))
    slide(Path("fourth.svs"), 4)
    Path("patients.csv").write_text(MANIFEST)
    assert run_main("bundle", "init", "card.toml").code == 0
    card = Path("card.toml").read_text().replace("tile_px = 224", "tile_px = 128").replace("um_per_px = 0.5 ", "#")
    Path("card.toml").write_text(card + NETWORK)

    cut = run_main("dataset", "--patients", "patients.csv", "--annotations", "geojson", "--class", "Tumor=tumour",
                   "--card", "card.toml", "--out", "DATA")  # fmt: skip
    assert cut.code == 0, cut.err
    assert Path("DATA/contact-sheet.png").is_file()

    trained = run_main("train", "DATA", "--card", "card.toml", "--out", "DIR", "--epochs", 2, "--set", "batch=4")
    assert trained.code == 0, trained.err
    told = open_bundle(Path("DIR/model.mminfer")).card
    assert (told.trained, told.undocumented) == (True, None)
    assert "depth_mm" in told.outputs

    scored = run_main("score", "fourth.svs", "--bundle", "DIR/model.mminfer", "--age", 55, "--json")
    assert scored.code == 0, scored.err
    (result,) = map(json.loads, scored.out.splitlines())
    # Two epochs on one slide are no better than chance, so it judges nothing.
    assert told.threshold is None
    assert (result["verdict"], result["reasons"][0]["code"]) == ("not-configured", "no-threshold")
    assert result["tiles"]["ok"] > 0
    assert 0 <= result["malignant_score"] <= 1
    assert "threshold         none: the model may be no better than chance" in trained.out
