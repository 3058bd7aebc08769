"""What OpenSlide says of slides that were written pixel by pixel, and of real ones."""

import numpy as np
import pytest
import tifffile
from slides_for_tests import noise, smooth, solid, with_damaged_tile, write_svs, write_tiff

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.slides.base import RegionUnreadableError
from melanoma_infer.slides.openslide_reader import OpenSlideReader, _bounds, knows


def test_facts_of_an_aperio_slide_are_those_of_its_description(tmp_path):
    path = write_svs(tmp_path / "s.svs", solid(600, 410), mpp="0.2527", power="40", levels=2)
    with OpenSlideReader(path) as slide:
        facts = slide.facts
    assert (facts.reader, facts.vendor, facts.objective_power) == ("openslide", "aperio", 40)
    assert facts.scale == Scale(0.2527, 0.2527)
    assert facts.level_sizes == (SizePx(600, 410), SizePx(300, 205))
    assert facts.level_downsamples == (1.0, 2.0)
    assert facts.size_l0 == SizePx(600, 410)
    assert facts.background == (255, 255, 255)
    assert not facts.is_phantom
    assert len(facts.quickhash) == 64


def test_x_and_y_scale_of_a_tiff_are_kept_apart(tmp_path):
    with OpenSlideReader(write_tiff(tmp_path / "s.tif", solid(300, 280), mpp=(0.25, 0.5))) as slide:
        assert slide.facts.scale.x_um == pytest.approx(0.25, rel=1e-6)
        assert slide.facts.scale.y_um == pytest.approx(0.5, rel=1e-6)
        assert slide.facts.vendor == "generic-tiff"


@pytest.mark.parametrize("text", ["", "nan", "inf", "about 0.5"])
def test_a_scale_that_is_no_number_is_no_scale(tmp_path, text):
    with OpenSlideReader(write_svs(tmp_path / "s.svs", solid(300, 280), mpp=text)) as slide:
        assert slide.facts.scale is None


def test_the_magnification_is_never_turned_into_a_scale(tmp_path):
    path = write_svs(tmp_path / "s.svs", solid(300, 280))
    path.write_bytes(path.read_bytes().replace(b"|MPP = 0.5", b"|QQQ = 0.5"))
    with OpenSlideReader(path) as slide:
        assert (slide.facts.scale, slide.facts.objective_power) == (None, 20)


def test_a_phantom_is_known_by_its_mark(tmp_path):
    with OpenSlideReader(write_svs(tmp_path / "s.svs", solid(300, 280), extra="|mminfer.phantom = v1")) as slide:
        assert slide.facts.is_phantom
    with OpenSlideReader(write_svs(tmp_path / "t.svs", solid(300, 280), extra="|Title = phantom")) as slide:
        assert not slide.facts.is_phantom


@pytest.mark.parametrize("writer", [write_tiff, write_svs])
@pytest.mark.parametrize("rect", [RectPx(0, 0, 517, 389), RectPx(255, 255, 3, 2), RectPx(500, 380, 17, 9)])
def test_pixels_are_those_that_were_written_opaque(tmp_path, writer, rect):
    pixels = noise(517, 389)
    with OpenSlideReader(writer(tmp_path / "s.tif", pixels)) as slide:
        rgba = slide.read_region(0, rect)
    assert rgba.shape == (rect.height, rect.width, 4)
    assert (rgba[..., 3] == 255).all()
    np.testing.assert_array_equal(rgba[..., :3], pixels[rect.y : rect.bottom, rect.x : rect.right])


def test_each_level_is_read_in_its_own_pixels(tmp_path):
    pixels = noise(1024, 768)
    with OpenSlideReader(write_tiff(tmp_path / "s.tif", pixels, levels=3)) as slide:
        for level in range(3):
            step = 2**level
            rgb = slide.read_region(level, RectPx(33, 41, 100, 90))[..., :3]
            np.testing.assert_array_equal(rgb, pixels[::step, ::step][41:131, 33:133])


def test_jpeg_pixels_are_close_to_those_that_were_written(tmp_path):
    pixels = smooth(512, 512)
    with OpenSlideReader(write_tiff(tmp_path / "s.tif", pixels, compression="jpeg")) as slide:
        rgb = slide.read_region(0, RectPx(0, 0, 512, 512))[..., :3]
    assert np.abs(rgb.astype(int) - pixels).mean() < 2


def test_a_damaged_tile_cannot_be_read_and_the_handle_is_spoilt(tmp_path):
    """OpenSlide's latch, which is why a Slide takes a fresh handle."""
    source = write_tiff(tmp_path / "s.tif", smooth(512, 512), compression="jpeg")
    with OpenSlideReader(with_damaged_tile(source, tmp_path / "d.tif", tile=3)) as slide:
        assert slide.read_region(0, RectPx(0, 0, 256, 256)).shape == (256, 256, 4)
        with pytest.raises(RegionUnreadableError):
            slide.read_region(0, RectPx(300, 300, 10, 10))
        with pytest.raises(RegionUnreadableError):
            slide.read_region(0, RectPx(0, 0, 256, 256))


def test_a_file_that_openslide_does_not_know_is_of_another_format(tmp_path):
    path = tmp_path / "s.svs"
    path.write_text("not a slide")
    assert not knows(path)
    with pytest.raises(SlideFormatError):
        OpenSlideReader(path)


def test_a_header_that_asks_for_impossible_memory_is_not_believed(tmp_path):
    """OpenSlide aborts the process where it gets no memory for a tile: seen with a TileLength of 2³⁰."""
    path = write_tiff(tmp_path / "s.tif", solid(512, 512))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["TileLength"].overwrite(1 << 30, dtype="I")
    with pytest.raises(SlideUnreadableError, match="impossible tiles"):
        OpenSlideReader(path)


def test_facts_of_a_real_slide(cmu):
    with OpenSlideReader(cmu) as slide:
        facts = slide.facts
        assert slide.read_region(0, RectPx(1000, 1000, 7, 5)).shape == (5, 7, 4)
    assert (facts.vendor, facts.objective_power, facts.scale) == ("aperio", 20, Scale(0.499, 0.499))
    assert facts.level_sizes == (SizePx(2220, 2967),)


def test_both_files_of_a_dicom_series_open_as_the_same_slide(real_slides):
    with OpenSlideReader(real_slides / "boxes_0.dcm") as one, OpenSlideReader(real_slides / "boxes_1.dcm") as two:
        assert one.facts == two.facts
        np.testing.assert_array_equal(
            one.read_region(0, RectPx(0, 0, 16, 16)), two.read_region(0, RectPx(0, 0, 16, 16))
        )


def test_bounds_inside_the_slide_are_kept_and_others_are_not():
    size, named = SizePx(5000, 4000), {"x": "800", "y": "1500", "width": "1536", "height": "1024"}
    bounds = {f"openslide.bounds-{key}": value for key, value in named.items()}
    assert _bounds(bounds, size) == RectPx(800, 1500, 1536, 1024)
    for key, value in (("width", "9000"), ("height", "0"), ("x", "-3"), ("y", "many")):
        assert _bounds(bounds | {f"openslide.bounds-{key}": value}, size) is None
    assert _bounds({}, size) is None
