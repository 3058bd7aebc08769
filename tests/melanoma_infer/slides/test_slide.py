"""The latch rule: one failed read spoils nothing else, and what fails twice is missing, never white."""

from pathlib import Path

import numpy as np
import pytest
from slides_for_tests import ArraySlide, facts_of, noise, reading, smooth, with_damaged_tile, write_tiff

from melanoma_infer.errors import SlideUnreadableError, TransientIOError
from melanoma_infer.geometry import RectPx
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.base import Closing, RegionUnreadableError
from melanoma_infer.slides.slide import Slide

RECT = RectPx(2, 3, 5, 4)


class Latching(Closing):
    """Fails at the reads that it is told to, and then refuses everything, as an OpenSlide handle does."""

    def __init__(self, log, failing):
        self.facts = facts_of([(40, 30)])
        self.log, self.failing, self.spoilt = log, failing, False
        log.append("open")

    def read_region(self, level, rect_level):
        self.log.append("read")
        self.spoilt |= self.log.count("read") in self.failing
        if self.spoilt:
            raise RegionUnreadableError
        return np.full((rect_level.height, rect_level.width, 4), 77, np.uint8) | np.array([0, 0, 0, 255], np.uint8)

    def close(self):
        self.log.append("close")


@pytest.fixture
def latching():
    def start(*failing):
        log = []
        return Slide(Path("slide"), Latching(log, failing), lambda _path, _watch: Latching(log, failing)), log

    return start


def test_a_read_that_fails_once_succeeds_on_a_fresh_handle(latching):
    reader, log = latching(1)
    assert np.unique(reader.read_rgb(0, RECT).pixels).tolist() == [77]
    assert log == ["open", "read", "close", "open", "read"]


def test_a_read_that_fails_twice_is_missing_and_the_next_one_is_not(latching):
    reader, log = latching(1, 2)
    assert reader.read_rgb(0, RECT) is None
    assert np.unique(reader.read_rgb(0, RECT).pixels).tolist() == [77]
    assert log == ["open", "read", "close", "open", "read", "close", "open", "read"]


def test_a_good_slide_is_opened_once(latching):
    reader, log = latching()
    for _ in range(3):
        reader.read_rgb(0, RECT)
    reader.close()
    reader.close()
    assert log == ["open", "read", "read", "read", "close"]


@pytest.mark.parametrize("error", [SlideUnreadableError, TransientIOError])
def test_a_file_that_was_taken_away_gives_missing_regions_and_no_exception(error):
    def gone(_path, _watch):
        raise error("gone")

    reader = Slide(Path("slide"), Latching([], [1]), gone)
    assert reader.read_rgb(0, RECT) is None
    assert reader.read_rgb(0, RECT) is None


def test_around_a_damaged_tile_everything_is_read_as_before(tmp_path):
    pixels = smooth(768, 512)
    source = write_tiff(tmp_path / "s.tif", pixels, compression="jpeg")
    damaged = with_damaged_tile(source, tmp_path / "d.tif", tile=1)
    rects = [RectPx(x, y, 256, 256) for y in (0, 256) for x in (0, 256, 512)]
    with open_slide(source) as whole, open_slide(damaged) as reader:
        for i in (1, 0, 1, 2, 1, 3, 4, 5, 1):
            seen, expected = reader.read_rgb(0, rects[i]), whole.read_rgb(0, rects[i])
            if i == 1:
                assert seen is None
            else:
                np.testing.assert_array_equal(seen.pixels, expected.pixels)


def test_a_rectangle_beyond_the_slide_is_padded_with_its_background():
    pixels = noise(20, 10)
    with reading(ArraySlide(pixels, background=(9, 8, 7))) as reader:
        region = reader.read_rgb(0, RectPx(-2, 7, 30, 6))
    expected = np.full((6, 30, 3), (9, 8, 7), np.uint8)
    expected[:3, 2:22] = pixels[7:10]
    np.testing.assert_array_equal(region.pixels, expected)
    assert region.transparent_px == 0


@pytest.mark.parametrize("rect", [RectPx(20, 0, 4, 4), RectPx(-4, 0, 4, 4), RectPx(3, 10, 4, 4)])
def test_a_rectangle_outside_the_slide_is_background_and_nothing_is_read(rect):
    slide = ArraySlide(noise(20, 10), background=(9, 8, 7))
    with reading(slide) as reader:
        region = reader.read_rgb(0, rect)
    assert np.unique(region.pixels.reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]
    assert slide.reads == []


def test_half_transparent_pixels_are_composited_exactly_and_only_whole_ones_count_as_unscanned():
    rgba = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    rgba[0, :4, 3], rgba[0, 4:8, 3] = 0, 255
    background = (13, 240, 255)
    with reading(ArraySlide(rgba, background=background)) as reader:
        region = reader.read_rgb(0, RectPx(0, 0, 16, 16))
    alpha = rgba[..., 3:].astype(float)
    exact = (rgba[..., :3] * alpha + np.array(background) * (255 - alpha)) / 255
    assert np.abs(region.pixels - exact).max() <= 0.5
    assert region.transparent_px == int((rgba[..., 3] == 0).sum())
