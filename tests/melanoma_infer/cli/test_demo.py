"""`mminfer demo`: the first thing that a new user sees."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from melanoma_infer.phantom.mark import CAUTION

pytestmark = pytest.mark.wheel

AS_A_NEWCOMER = """
import sys
def hook(event, arguments):
    if event.startswith(("socket.", "http.client", "urllib", "ftplib", "smtplib")):
        print("OPENED", event, arguments, file=sys.stderr)
        import os; os._exit(99)
sys.addaudithook(hook)
for name in ("torch", "triton", "onnxruntime", "onnxscript"): sys.modules[name] = None
sys.argv[0] = "mminfer"
from melanoma_infer.cli.app import main
main()
"""


def demo(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The demo as a process that may open no socket and import no torch, with `folder` as its home and place."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "HOME": str(folder)}
    command = [sys.executable, "-c", AS_A_NEWCOMER, "demo", *more]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def first(place):
    return demo(place)


def made(place: Path) -> list[Path]:
    """Every slide, truth and report: what has no newer time was not made again."""
    return [
        path
        for pattern in ("*.svs", "*.json", "results/*-lesion-*/*")
        for path in place.glob(f"mminfer-demo/{pattern}")
    ]


def results(place: Path) -> dict[str, dict[str, object]]:
    return {
        path.parent.name.rsplit("-", 2)[0]: json.loads(path.read_text())
        for path in place.glob("mminfer-demo/results/*/result.json")
    }


def test_it_ends_well_without_a_socket_and_without_torch(first, place):
    assert first.returncode == 0, first.stderr
    assert {path.name for path in place.iterdir()} == {"mminfer-demo"}
    assert {path.name for path in (place / "mminfer-demo").iterdir()} == {
        "with-lesion.svs", "with-lesion.json", "without-lesion.svs", "without-lesion.json", "results",
    }  # fmt: skip


def test_it_prints_a_sentence_and_a_path_for_each_slide(first, place):
    said = first.stdout
    assert re.search(r"^with-lesion: Suspected melanoma", said, re.M)
    assert re.search(r"^without-lesion: No suspected region in \d+ % evaluable tissue", said, re.M)
    paths = [place / line.strip() for line in said.splitlines() if line.startswith("  mminfer-demo")]
    assert len(paths) == 2
    assert all(path.exists() for path in paths)
    if (paths[0] if paths[0].is_dir() else paths[0].parent).joinpath("report.html").exists():
        assert all(path.name == "report.html" for path in paths)


def test_it_says_what_was_drawn_from_the_ground_truth(first, place):
    truth = json.loads((place / "mminfer-demo" / "with-lesion.json").read_text())
    size = f"{truth['area_mm2']:.2f} mm² that reaches {truth['breslow_mm']:.2f} mm deep"
    assert f"  drawn: skin with a melanoma of {size}" in first.stdout.splitlines()
    assert "  drawn: the same skin without it" in first.stdout.splitlines()


def test_it_says_what_it_judges_and_what_to_try_next(first):
    assert "The demo bundle has learned from other drawings and judges nothing else" in first.stdout
    assert CAUTION in first.stdout
    commands = re.findall(r"^  (mminfer [a-z]+)", first.stdout.partition("Try next:")[2], re.M)
    assert commands == ["mminfer score", "mminfer bundle", "mminfer doctor"]


def test_every_tile_of_both_slides_was_scored_whole(first, place):
    found = results(place)
    assert set(found) == {"with-lesion", "without-lesion"}
    for result in found.values():
        assert result["slide"]["is_phantom"]
        assert result["tiles"]["ok"] == 6
        assert result["tiles"]["padded"] == 0


def raster(size_l0: tuple[int, int], rings: list[list[list[float]]]) -> np.ndarray:
    """Where the rings are, one pixel for 5 × 5 of level 0."""
    image = Image.new("1", (size_l0[0] // 5, size_l0[1] // 5))
    for ring in rings:
        ImageDraw.Draw(image).polygon([(x / 5, y / 5) for x, y in ring], fill=1)
    return np.array(image)


def require_found(place: Path) -> None:
    """Require the lesion to be suspected and outlined where it was drawn, and nothing in the twin."""
    found, truth = results(place), json.loads((place / "mminfer-demo" / "with-lesion.json").read_text())
    assert found["without-lesion"]["verdict"] == "not-detected"
    assert found["without-lesion"]["regions"] == []
    result = found["with-lesion"]
    assert result["verdict"] == "suspected"
    size = tuple(truth["size_l0"])
    drawn = raster(size, truth["sections"][0]["outlines_l0"])
    outlined = raster(size, [region["outline"] for region in result["regions"]])
    outlined &= ~raster(size, [hole for region in result["regions"] for hole in region["holes"]])
    assert (drawn & outlined).sum() / (drawn | outlined).sum() >= 0.5


def test_the_lesion_is_found_where_it_was_drawn_and_its_twin_is_clean(first, place):
    require_found(place)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_so_it_is_with_other_seeds(tmp_path, seed):
    assert demo(tmp_path, "--seed", str(seed)).returncode == 0
    require_found(tmp_path)


def test_the_second_time_nothing_is_drawn_or_scored_and_the_same_is_said(first, place):
    before = {path: path.stat().st_mtime_ns for path in made(place)}
    second = demo(place)
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert {path: path.stat().st_mtime_ns for path in made(place)} == before


def test_a_folder_that_cannot_be_made_is_an_output_error(mminfer, tmp_path):
    (tmp_path / "file").write_text("")
    ended = mminfer("demo", "--out", tmp_path / "file" / "demo")
    assert (ended.code, ended.out) == (14, "")
    assert "--out: the folder cannot be created: a file is where a folder has to be." in ended.err


def test_a_slide_that_fails_is_reported_and_ends_the_demo_with_its_exit_code(mminfer, tmp_path, monkeypatch):
    from melanoma_infer.phantom import write

    def cut_short(path, scene, um_per_px, **more):
        whole(path, scene, um_per_px, **more)
        path.write_bytes(path.read_bytes()[:-10_000])

    whole = write.write_phantom
    monkeypatch.setattr(write, "write_phantom", cut_short)
    monkeypatch.setattr("melanoma_infer.cli.demo.SIZE_UM", (2000.0, 1500.0))
    monkeypatch.setattr("melanoma_infer.cli.demo.DEPTH_MM", 0.3)
    ended = mminfer("demo", "--out", tmp_path / "d")
    assert ended.code == 10
    assert "with-lesion: failed at" in ended.err
