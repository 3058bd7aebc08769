"""Which reader is taken: the faster one only where it gave OpenSlide's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slides_for_tests import noise, smooth, with_damaged_tile, with_tile_left_out, write_image, write_svs, write_tiff

from melanoma_infer.errors import SlideFormatError, UsageError
from melanoma_infer.geometry import RectPx
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.choice import choose_reader, reader_choice
from melanoma_infer.slides.tiff_reader import TiffReader, _TiledPage

AROUND = [(0, 0), (300, 200)]


@pytest.fixture(scope="module")
def svs(tmp_path_factory):
    return write_svs(tmp_path_factory.mktemp("slides") / "s.svs", smooth(1500, 900), compression="jpeg")


def chosen(path, choice, around=AROUND):
    with open_slide(path) as slide:
        return choose_reader(slide, 0, around, choice).facts.reader


@pytest.mark.parametrize(("choice", "reader"), [("auto", "tiff"), ("tiff", "tiff"), ("openslide", "openslide")])
def test_jpeg_tiles_are_decoded_directly_unless_openslide_is_chosen(svs, choice, reader):
    assert chosen(svs, choice) == reader


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_tiff(folder / "plain.tif", smooth(300, 280)),
        lambda folder: write_svs(folder / "plain.svs", smooth(300, 280)),
        lambda folder: write_image(folder / "image.png", noise(60, 40)),
    ],
)
def test_what_cannot_be_decoded_directly_keeps_its_reader(tmp_path, write):
    path = write(tmp_path)
    with open_slide(path) as slide:
        assert chosen(path, "auto") == slide.facts.reader
    with pytest.raises(SlideFormatError, match="--reader auto"):
        chosen(path, "tiff")


@pytest.mark.parametrize("where", [(0, 0), (1499, 899)])
def test_one_pixel_that_differs_in_any_probe_leaves_the_slide_to_openslide(svs, monkeypatch, where):
    original = TiffReader.read_region

    def off_by_one(self, level, rect):
        pixels = original(self, level, rect).copy()
        x, y = where[0] - rect.x, where[1] - rect.y
        if 0 <= x < rect.width and 0 <= y < rect.height:
            pixels[y, x, 1] ^= 1
        return pixels

    monkeypatch.setattr(TiffReader, "read_region", off_by_one)
    assert chosen(svs, "auto") == "openslide"
    with pytest.raises(SlideFormatError):
        chosen(svs, "tiff")


def test_a_slide_that_leaves_tiles_out_is_decoded_directly_so_that_they_are_seen(svs, tmp_path):
    assert chosen(with_tile_left_out(svs, tmp_path / "out.svs"), "auto") == "tiff"


def test_a_damaged_probe_leaves_the_slide_to_openslide(svs, tmp_path):
    assert chosen(with_damaged_tile(svs, tmp_path / "d.svs"), "auto") == "openslide"


def test_a_slide_smaller_than_a_probe_is_compared_too(tmp_path):
    assert chosen(write_svs(tmp_path / "s.svs", smooth(100, 60), compression="jpeg"), "auto", []) == "tiff"


def test_every_source_opens_handles_of_the_chosen_reader(svs, tmp_path):
    image = write_image(tmp_path / "image.png", noise(60, 40))
    rect = RectPx(3, 5, 30, 20)
    for path, choice in ((svs, "tiff"), (svs, "openslide"), (image, "auto")):
        with open_slide(path) as slide:
            source, expected = choose_reader(slide, 0, [], choice), slide.read_region(0, rect)[..., :3]
            with source.open(path) as first, source.open(path) as second:
                for handle in (first, second):
                    assert handle.facts == source.facts
                    np.testing.assert_array_equal(handle.read_region(0, rect)[..., :3], expected)


def test_the_handles_of_one_source_decode_a_tile_once(svs, monkeypatch):
    decoded = []
    original = _TiledPage.decoded
    monkeypatch.setattr(_TiledPage, "decoded", lambda self, data: decoded.append(1) or original(self, data))
    with open_slide(svs) as slide:
        source = choose_reader(slide, 0, [], "tiff")
        decoded.clear()
        with source.open(svs) as first, source.open(svs) as second:
            first.read_region(0, RectPx(0, 0, 256, 256))
            second.read_region(0, RectPx(0, 0, 256, 256))
    assert len(decoded) == 1


def test_a_slide_that_is_no_tiff_says_what_to_do(real_slides: Path):
    with pytest.raises(SlideFormatError, match="--reader auto"):
        chosen(real_slides / "boxes_0.dcm", "tiff")
    assert chosen(real_slides / "boxes_0.dcm", "auto") == "openslide"


def test_a_choice_that_nobody_knows_is_a_usage_error():
    with pytest.raises(UsageError, match="openslide"):
        reader_choice("libvips")
