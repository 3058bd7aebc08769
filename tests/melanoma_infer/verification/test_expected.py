"""`--expected`: research code that is right agrees; one that is wrong is told what it does."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from slides_for_tests import write_tiff

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.options import Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.settings import Settings
from melanoma_infer.verification.expected import compare_with_expected, read_expected
from melanoma_infer.verification.pictures import write_pictures

MPP = 0.5
SIDE_L0 = 512
"""256 µm."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A slide's pixels, and the slide, with levels 1, 2 and 4."""
    scene = make_scene(11, "melanoma", (9000.0, 6000.0), Options(style="D"))
    pixels = np.asarray(draw(scene, RectPx(7000, 3000, 2560, 2048), MPP))
    return pixels, write_tiff(tmp_path_factory.mktemp("slides") / "drawn.tiff", pixels, mpp=(MPP, MPP), levels=3)


@pytest.fixture(scope="module")
def scorer(small):
    return Scorer(open_bundle(small), "onnxruntime")


class ResearchCode:
    """What somebody wrote in a notebook: crops of an array, Pillow, ONNX Runtime on floats of its own."""

    def __init__(self, small: Path) -> None:
        self.session = onnxruntime.InferenceSession((small / "model.fp32.onnx").read_bytes())

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        return self.session.run(["probabilities"], {"tiles": tile[None]})[0][0]


def tile_of(level: np.ndarray, x: int, y: int, side: int, resample: Image.Resampling) -> np.ndarray:
    # Whole pixels of the level that the card would read: no box is needed.
    return np.asarray(Image.fromarray(level[y : y + side, x : x + side]).resize((64, 64), resample))


def write_expected(path: Path, small: Path, pixels: np.ndarray, *, at=(0, 0), level=2, by=2, change=lambda tile: tile):
    """A CSV of research code that reads level `level` (downsample 2^level) and resizes it `by` a filter."""
    code, down = ResearchCode(small), 2**level
    plane = pixels[::down, ::down]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["minx", "miny", "width", "height", "prob_normal", "prob_tumour"])
        for y in range(0, pixels.shape[0] - SIDE_L0, SIDE_L0):
            for x in range(0, pixels.shape[1] - SIDE_L0, SIDE_L0):
                tile = tile_of(plane, (x + at[0]) // down, (y + at[1]) // down, SIDE_L0 // down, Image.Resampling(by))
                writer.writerow([x, y, SIDE_L0, SIDE_L0, *code(np.ascontiguousarray(change(tile)))])
    return path


def compared(scorer, drawn, expected):
    return compare_with_expected(scorer, drawn[1], expected, Settings())


def test_right_research_code_agrees(small, scorer, drawn, tmp_path):
    found = compared(scorer, drawn, write_expected(tmp_path / "theirs.csv", small, drawn[0]))
    assert found.max_dp < 1e-5
    assert found.passed
    assert found.cause is None
    assert found.given == found.matched == 12
    assert 0 < found.on_grid <= 12


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"change": lambda tile: tile[..., ::-1]}, "BGR"),
        ({"at": (SIDE_L0 // 2, SIDE_L0 // 2)}, "half a tile further right and down"),
        ({"at": (0, SIDE_L0 // 2)}, "half a tile further down"),
        ({"by": Image.Resampling.NEAREST}, "another resize (nearest)"),
        ({"level": 0, "by": Image.Resampling.NEAREST}, "another"),
    ],
    ids=["channels", "half-tile", "half-tile-down", "nearest", "level-and-nearest"],
)
def test_what_wrong_research_code_does_is_told(small, scorer, drawn, tmp_path, wrong, cause):
    found = compared(scorer, drawn, write_expected(tmp_path / "theirs.csv", small, drawn[0], **wrong))
    assert not found.passed
    assert found.mean_dp > 3 * found.mean_limit
    assert found.cause is not None
    assert cause in found.cause
    assert found.tried[0].mean_dp < found.before / 3


@pytest.mark.parametrize(
    ("gain", "shift", "cause"),
    [
        (255.0, 0.0, "no division by 255"),
        (1 / 255, 0.0, "divided by 255 twice"),
        (1 / 0.2, -255 * 0.75 / 0.2, "normalised twice"),
        (0.2, 255 * 0.75, "left out"),
    ],
)
def test_wrong_normalisation_is_told(small, scorer, drawn, tmp_path, gain, shift, cause):
    """Research code runs on floats, so the graph here takes floats, too."""
    import onnx

    model = onnx.load(small / "model.fp32.onnx")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    session = onnxruntime.InferenceSession(model.SerializeToString())
    path = write_expected(tmp_path / "theirs.csv", small, drawn[0])
    rows = list(csv.reader(path.read_text().splitlines()))
    for row in rows[1:]:
        x, y = int(row[0]), int(row[1])
        tile = tile_of(drawn[0][::4, ::4], x // 4, y // 4, SIDE_L0 // 4, Image.Resampling.BILINEAR)
        fed = (tile[None].astype(np.float32) * np.float32(gain) + np.float32(shift)).astype(np.float32)
        row[4:] = session.run(["probabilities"], {"tiles": fed})[0][0].tolist()
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = compared(scorer, drawn, path)
    assert not found.passed
    assert found.cause is not None
    assert cause in found.cause


def test_numbers_of_another_model_have_no_likely_cause(small, scorer, drawn, tmp_path):
    path = write_expected(tmp_path / "theirs.csv", small, drawn[0])
    rows = list(csv.reader(path.read_text().splitlines()))
    rng = np.random.default_rng(2)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *([*row[:4], *rng.random(2)] for row in rows[1:])])
    found = compared(scorer, drawn, path)
    assert found.cause is None
    assert "None of" in found.diagnosis


def test_the_worst_tiles_stand_side_by_side(small, scorer, drawn, tmp_path):
    found = compared(
        scorer, drawn, write_expected(tmp_path / "theirs.csv", small, drawn[0], change=lambda tile: tile[..., ::-1])
    )
    largest = [float(np.abs(each.ours - each.theirs).max()) for each in found.worst]
    assert len(largest) == 5
    assert largest == sorted(largest, reverse=True)
    assert largest[0] == found.max_dp
    page = write_pictures(tmp_path / "out", found)
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 5
    assert f"{found.worst[0].theirs[1]:.4f}" in text
    assert f"{found.worst[0].ours[1]:.4f}" in text
    assert "BGR" in text
    assert "theirs.csv" not in text
    with Image.open(tmp_path / "out" / "worst-1.png") as picture:
        assert (np.asarray(picture) == found.worst[0].pixels).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("minx,miny,width,height,prob_normal\n0,0,1,1,1\n", "prob_tumour"),
        ("minx,miny,width,height,prob_normal,prob_tumour\n0,0,512,512,a,0.5\n", "line 2"),
        ("minx,miny,width,height,prob_normal,prob_tumour\n0,0,512,0,0.5,0.5\n", "line 2"),
        ("minx,miny,width,height,prob_normal,prob_tumour\n0,0,512,512,nan,0.5\n", "line 2"),
        ("minx,miny,width,height,prob_normal,prob_tumour\n0,0,512\n", "no row"),
        ("minx,miny,width,height,prob_normal,prob_tumour\n", "no row"),
        ("\xff\xfe", "minx"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, words):
    path = tmp_path / "theirs.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_expected(path, ("normal", "tumour"))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_expected(tmp_path / "none.csv", ("normal", "tumour"))


def test_our_own_tiles_csv_is_accepted(scorer, drawn, tmp_path):
    from melanoma_infer.pipeline.flow import score_slide
    from melanoma_infer.reports import tiles_csv

    (tmp_path / "tiles.csv").write_bytes(tiles_csv.render(score_slide(drawn[1], scorer)))
    found = compared(scorer, drawn, tmp_path / "tiles.csv")
    assert found.max_dp < 1e-8
    assert found.on_grid == found.matched == found.given
