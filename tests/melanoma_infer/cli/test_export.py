"""`mminfer export`: a new bundle, compared before it is written; plain error messages if it cannot be made."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.contents import PACKAGED
from melanoma_infer.engines import load_engine
from melanoma_infer.errors import ParityError
from mminfer_export import precisions


@pytest.fixture(autouse=True)
def _few_tiles(monkeypatch):
    """Fewer tiles than a user gets: what is tested here is the command."""
    monkeypatch.setattr(precisions, "CHECK_TILES", 4)
    monkeypatch.setattr(precisions, "CALIBRATION_TILES", 4)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def single(tmp_path):
    """The demo bundle's folder with no graph but fp32."""
    demo = open_bundle("demo")
    rows = tuple(row for row in demo.parity if row.precision == "fp32")
    return precisions.write_with(
        replace(demo, graphs={"fp32": demo.graphs["fp32"]}, parity=rows), [], tmp_path / "single.mminfer"
    )


def test_fp16_makes_a_new_bundle_and_leaves_the_old_one_as_it_was(mminfer, single, tmp_path):
    before, out = contents(single), tmp_path / "half.mminfer"
    ended = mminfer("export", single, "--to", "onnx", "--precision", "fp16", "--out", out)
    assert ended.code == 0, ended.err
    assert contents(single) == before
    made = open_bundle(out)
    assert made.precisions == ("fp32", "fp16")
    assert made.card == open_bundle("demo").card
    after = contents(out)
    assert after.keys() - before.keys() == {"model.fp16.onnx"}
    for name in ("model.fp32.onnx", "weights.safetensors", "head.safetensors"):
        assert after[name] == before[name], name
    for engine in ("openvino", "onnxruntime"):
        row = made.parity_of(engine, "fp16")
        assert 0 < row.max_dp <= made.card.tolerance_of("fp16").dp
        assert row.tiles == 8
    assert str(out) in ended.out
    assert "openvino fp16" in ended.out


def test_the_new_graph_gives_the_golden_outputs(mminfer, tmp_path):
    out = tmp_path / "half.mminfer"
    assert mminfer("export", "demo", "--precision", "fp16", "--out", out).code == 0
    made = open_bundle(out)
    outputs = load_engine(made, "openvino", precision="fp16").engine.infer(made.golden.tiles)
    np.testing.assert_allclose(outputs["probabilities"], made.golden.outputs["probabilities"], rtol=0, atol=5e-3)
    np.testing.assert_allclose(outputs["depth_mm"], made.golden.outputs["depth_mm"], rtol=0, atol=0.02)


def test_json_alone_is_printed(mminfer, tmp_path):
    ended = mminfer("export", "demo", "--precision", "fp32", "--out", tmp_path / "copy.mminfer", "--json")
    result = json.loads(ended.out)
    assert (result["precision"], result["kept_float"]) == ("fp32", [])
    assert result["bytes"] == (PACKAGED / "demo.mminfer" / "model.fp32.onnx").stat().st_size
    assert {row["engine"] for row in result["parity"]} == {"openvino", "onnxruntime"}
    assert max(row["max_dp"] for row in result["parity"]) < 1e-4


def test_an_existing_bundle_is_not_touched(mminfer, tmp_path):
    (tmp_path / "there.mminfer").mkdir()
    ended = mminfer("export", "demo", "--out", tmp_path / "there.mminfer")
    assert ended.code == 14
    assert "exists" in ended.err
    assert list((tmp_path / "there.mminfer").iterdir()) == []


@pytest.mark.parametrize("argv", [("--calibration", "x.svs"), ("--tiles", "x"), ("--mpp", "0.5"), ("--tile-um", "256")])
def test_calibration_is_for_int8_alone(mminfer, tmp_path, argv):
    ended = mminfer("export", "demo", "--precision", "fp16", "--out", tmp_path / "a.mminfer", *argv)
    assert ended.code == 2
    assert "--precision int8" in ended.err


@pytest.mark.parametrize("argv", [("--mpp", "0.5"), ("--tile-um", "256")])
def test_options_of_calibration_slides_need_a_slide(mminfer, tmp_path, argv):
    ended = mminfer("export", "demo", "--precision", "int8", "--out", tmp_path / "a.mminfer", *argv)
    assert ended.code == 2
    assert "--calibration SLIDE" in ended.err


def test_int8_is_calibrated_on_images_and_on_a_slide_whose_scale_is_typed(mminfer, tmp_path, monkeypatch):
    """What reaches the quantiser: 40 images are thinned to 32; the picture of 2 × 2 tiles has no scale of its own."""
    side = open_bundle("demo").card.tile_px
    (tmp_path / "tiles").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3), np.uint8).repeat(side, 1).repeat(side, 2)
    for number, tile in enumerate(pixels):
        Image.fromarray(tile).save(tmp_path / "tiles" / f"{number:02}.png")
    stained = np.full((2 * side, 2 * side, 3), (200, 60, 150), np.uint8)
    stained[:, : side // 4] = 245
    Image.fromarray(stained).save(tmp_path / "slide.png")
    seen = []

    def stop(_bundle, _precision, tiles):
        seen.append(tiles)
        raise ParityError("Enough.")

    monkeypatch.setattr(precisions, "make_precision", stop)
    slide = ("--calibration", tmp_path / "slide.png", "--mpp", "1", "--tile-um", str(side))
    out = ("--precision", "int8", "--out", tmp_path / "a.mminfer")
    assert mminfer("export", "demo", *out, "--tiles", tmp_path / "tiles", *slide).code == 22
    np.testing.assert_array_equal(seen[0].pixels[-32], pixels[0])
    np.testing.assert_array_equal(seen[0].pixels[-1], pixels[39])
    assert seen[0].on == "4 tiles of 1 slide, 32 of the author's tiles"
    assert seen[0].pixels.shape == (36, side, side, 3)
    assert mminfer("export", "demo", *out, "--calibration", tmp_path / "slide.png").code == 12


def test_a_graph_beyond_its_tolerance_is_not_written(mminfer, tmp_path, monkeypatch):
    def beyond_tolerance(*_):
        raise ParityError("The int8 graph differs from fp32 by more than the card's tolerance.")

    monkeypatch.setattr(precisions, "make_precision", beyond_tolerance)
    ended = mminfer("export", "demo", "--precision", "int8", "--out", tmp_path / "a.mminfer")
    assert ended.code == 22
    assert not (tmp_path / "a.mminfer").exists()


def test_a_graph_that_differs_is_beyond_its_tolerance(monkeypatch):
    """Changed features are detected on the tiles; the converter is not trusted."""
    demo = open_bundle("demo")
    reference = precisions.reference_outputs

    def shifted(bundle, tiles):
        outputs = dict(reference(bundle, tiles))
        outputs["features"] = outputs["features"] * 1.5
        return outputs

    monkeypatch.setattr(precisions, "reference_outputs", shifted)
    with pytest.raises(ParityError, match="tolerance"):
        precisions.make_precision(demo, "fp32")


def test_without_the_extra_the_message_names_it(mminfer, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "mminfer_export.precisions")
    monkeypatch.setitem(sys.modules, "melanoma_infer.bundle.half", None)
    ended = mminfer("export", "demo", "--out", tmp_path / "a.mminfer")
    assert ended.code == 21
    assert "pip install 'mminfer[export]'" in ended.err


@pytest.mark.slow
def test_int8_is_calibrated_on_the_users_slide(mminfer, tmp_path, real_slides):
    out = tmp_path / "int8.mminfer"
    slide = real_slides / "cmu-1-small-region.svs"
    ended = mminfer("export", "demo", "--precision", "int8", "--calibration", slide, "--tile-um", "256", "--out", out)
    assert ended.code == 0, ended.err
    bundle = open_bundle(out)
    row = bundle.parity_of("openvino", "int8")
    assert "tiles of 1 slide" in row.on
    assert row.p999_dp <= bundle.card.tolerance_of("int8").dp
