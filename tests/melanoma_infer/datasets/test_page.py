"""docs/datasets.md: its commands and its Python run, and it names every column, reason and limit."""

import re
import shlex
from pathlib import Path

import pytest
from commands_for_tests import run_main
from datasets_for_tests import breslow, feature, polygon, square, write_geojson, write_picture
from slides_for_tests import EOSIN, noise, solid, write_image, write_svs

from melanoma_infer.datasets import annotated, area_rule, placing
from melanoma_infer.datasets.table import AFTER_PATIENT, BEFORE_PATIENT

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "datasets.md").read_text()
CARD = """
name = "mine"
classes = ["normal", "naevus", "melanoma"]
malignant = ["melanoma"]
tile_px = 256
um_per_px = 0.5
mean = [0, 0, 0]
std = [1, 1, 1]
resize = "reduce-bilinear"
outputs = ["features"]
[[patient_fields]]
name = "age"
values = ["young", "old"]
edges = [50.0]
[[patient_fields]]
name = "sex"
values = ["female", "male"]
"""


def blocks(language):
    return re.findall(rf"^ *```{language}\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """What the page's commands need."""
    (tmp_path / "slides").mkdir()
    for seed, name in enumerate(("S1", "S2")):
        write_svs(tmp_path / f"slides/{name}.svs", solid(1280, 1024, EOSIN) - noise(1280, 1024, seed) // 16)
    tumour = feature(polygon(square(512, 512, 256)), "Tumor")
    write_geojson(tmp_path / "annotations/S1.geojson", tumour, breslow([600, 560], [640, 590]))
    nevus = feature(polygon(square(256, 256, 100)), "Nevus")
    write_geojson(tmp_path / "annotations/S2.svs.geojson", nevus, feature(polygon(square(800, 0, 50)), "Artefact"))
    (manifest,) = blocks("csv")
    (tmp_path / "patients.csv").write_text(re.sub("^ +", "", manifest, flags=re.MULTILINE).replace("1.4", "0.02"))
    (tmp_path / "card.toml").write_text(CARD)
    for name in ("folder/melanoma/P1_a.png", "folder/normal/P2_b.png"):
        write_picture(tmp_path / name, side=256)
    (tmp_path / "mine.csv").write_text("tile,case_id,class\nfolder/normal/P2_b.png,P2,normal\n")
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "P1.png", solid(256, 256, (255, 255, 255)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_s_commands_and_python_run(place, capsys):
    cut, ready_made = (block.strip().splitlines() for block in blocks("sh"))
    for line in cut:
        ended = run_main(*shlex.split(line)[1:])
        assert ended.code == 0, ended.err
    # Of S1 one tile and the 19 others of its grid, of S2 one and 18: an ignored outline is no background.
    (python,) = blocks("python")
    exec(compile(python, "datasets.md", "exec"), {})
    assert capsys.readouterr().out == "39 tiles, 1 with a thickness of 0.025 mm\n"
    for line in ready_made:
        ended = run_main(*shlex.split(line)[1:], "--overwrite")
        assert ended.code == 0, ended.err


def test_the_page_names_every_column_reason_and_limit():
    for name in (*BEFORE_PATIENT, *AFTER_PATIENT):
        assert f"`{name}`" in PAGE
    for reason in (placing.AMBIGUOUS, placing.LITTLE_TISSUE, annotated.UNREADABLE, placing.NOT_MEASURED):
        assert f"(`{reason}`)" in PAGE
    assert f"{area_rule.TILE_SHARE_MIN:.0%}".replace("%", " %") in PAGE
