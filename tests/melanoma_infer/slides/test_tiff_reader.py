"""The slide's own tiles, decoded directly: OpenSlide's pixels, and what the file leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from slides_for_tests import smooth, solid, with_damaged_tile, with_tile_left_out, write_svs, write_tiff

from melanoma_infer.geometry import RectPx
from melanoma_infer.slides.base import RegionUnreadableError
from melanoma_infer.slides.openslide_reader import OpenSlideReader
from melanoma_infer.slides.tiff_reader import TiffReader, _TiledPage
from melanoma_infer.slides.tile_cache import TileCache

WIDTH, HEIGHT = 700, 530
RECTS = [
    RectPx(0, 0, 256, 256),
    RectPx(0, 0, 10, 10),
    RectPx(100, 90, 513, 300),
    RectPx(255, 255, 2, 2),
    RectPx(600, 400, 100, 130),
    RectPx(0, 0, WIDTH, HEIGHT),
]


def tiff_reader(path, cache=None):
    with OpenSlideReader(path) as openslide:
        return TiffReader(path, openslide.facts, cache)


def assert_like_openslide(path, level=0, rects=RECTS):
    with tiff_reader(path) as tiff, OpenSlideReader(path) as openslide:
        assert tiff.decodes(level)
        for rect in rects:
            expected = openslide.read_region(level, rect)
            assert (expected[..., 3] == 255).all()
            np.testing.assert_array_equal(tiff.read_region(level, rect), expected[..., :3])


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_jpeg_tiles_have_openslides_pixels(tmp_path, photometric):
    path = write_svs(tmp_path / "s.svs", smooth(WIDTH, HEIGHT), compression="jpeg", photometric=photometric)
    assert_like_openslide(path)


def test_every_level_with_a_whole_downsample_is_decoded(tmp_path):
    path = write_tiff(tmp_path / "s.tif", smooth(704, 576), compression="jpeg", levels=3)
    for level in (1, 2):
        assert_like_openslide(path, level, [RectPx(0, 0, 176, 144), RectPx(33, 21, 100, 77)])
    rect = RectPx(33, 21, 100, 77)
    with tiff_reader(path) as tiff, OpenSlideReader(path) as openslide:
        for level in (0, 1, 2):
            np.testing.assert_array_equal(tiff.read_region(level, rect), openslide.read_region(level, rect)[..., :3])


def test_a_level_with_a_fractional_downsample_is_left_to_openslide(tmp_path):
    path = write_tiff(tmp_path / "s.tif", smooth(701, 530), compression="jpeg", levels=2)
    rect = RectPx(33, 21, 100, 77)
    with tiff_reader(path) as tiff, OpenSlideReader(path) as openslide:
        assert not tiff.decodes(1)
        np.testing.assert_array_equal(tiff.read_region(1, rect), openslide.read_region(1, rect))


def test_jpeg_2000_tiles_have_openslides_pixels(tmp_path):
    path = write_svs(tmp_path / "s.svs", smooth(WIDTH, HEIGHT), compression="aperio_jp2000_rgb")
    assert_like_openslide(path)


def test_a_real_slide_has_openslides_pixels(real_slides):
    rects = [RectPx(0, 0, 513, 513), RectPx(871, 1203, 513, 513), RectPx(1707, 2454, 513, 513)]
    assert_like_openslide(real_slides / "cmu-1-small-region.svs", rects=rects)


@pytest.mark.parametrize("name", ["boxes.tiff", "test3-dapi-2.ndpi"])
def test_what_is_not_stored_as_such_tiles_is_left_to_openslide(real_slides, name):
    rect = RectPx(3, 5, 60, 50)
    with tiff_reader(real_slides / name) as tiff, OpenSlideReader(real_slides / name) as openslide:
        assert not any(tiff.decodes(level) for level in range(len(tiff.facts.level_sizes)))
        np.testing.assert_array_equal(tiff.read_region(0, rect), openslide.read_region(0, rect))


def test_the_facts_are_openslides_but_for_the_readers_name(real_slides):
    path = real_slides / "cmu-1-small-region.svs"
    with tiff_reader(path) as tiff, OpenSlideReader(path) as openslide:
        assert tiff.facts.reader == "tiff"
        named = {"reader", "reader_version"}
        ours, theirs = vars(tiff.facts), vars(openslide.facts)
        assert {key: ours[key] for key in ours.keys() - named} == {key: theirs[key] for key in theirs.keys() - named}


def test_a_tile_that_the_file_leaves_out_is_transparent_and_the_others_are_as_before(tmp_path):
    whole = write_svs(tmp_path / "s.svs", smooth(WIDTH, HEIGHT), compression="jpeg")
    path = with_tile_left_out(whole, tmp_path / "out.svs", tile=1)  # columns 256 to 511, rows 0 to 255
    with tiff_reader(whole) as before, tiff_reader(path) as tiff:
        seen = tiff.read_region(0, RectPx(200, 100, 400, 300))
        expected = before.read_region(0, RectPx(200, 100, 400, 300))
    held = np.ones((300, 400), bool)
    held[: 256 - 100, 256 - 200 : 512 - 200] = False
    np.testing.assert_array_equal(seen[..., 3] == 255, held)
    np.testing.assert_array_equal(seen[..., 3] == 0, ~held)
    np.testing.assert_array_equal(seen[held][:, :3], expected[held])


def test_tiles_left_out_of_a_lower_level_are_filled_as_openslide_fills_them(tmp_path):
    whole = write_svs(tmp_path / "s.svs", smooth(1408, 1152), levels=2, compression="jpeg")
    path = with_tile_left_out(whole, tmp_path / "out.svs", tile=1, level=1)
    rects = [RectPx(0, 0, 704, 576), RectPx(200, 100, 400, 300), RectPx(300, 10, 20, 20)]
    assert_like_openslide(path, 1, [RectPx(0, 256, 200, 200)])
    with tiff_reader(path) as tiff, OpenSlideReader(path) as openslide:
        for rect in rects:
            expected = openslide.read_region(1, rect)
            assert (expected[..., 3] == 255).all()
            np.testing.assert_array_equal(tiff.read_region(1, rect), expected)


def test_a_damaged_tile_cannot_be_read_and_the_others_can(tmp_path):
    whole = write_svs(tmp_path / "s.svs", smooth(WIDTH, HEIGHT), compression="jpeg")
    with tiff_reader(with_damaged_tile(whole, tmp_path / "d.svs", tile=1)) as tiff, tiff_reader(whole) as before:
        with pytest.raises(RegionUnreadableError):
            tiff.read_region(0, RectPx(200, 100, 400, 300))
        left = RectPx(0, 0, 256, HEIGHT)
        np.testing.assert_array_equal(tiff.read_region(0, left), before.read_region(0, left))


@pytest.mark.parametrize("side", [128, 4096])
def test_a_tile_whose_own_header_names_another_size_cannot_be_read(tmp_path, side):
    whole = write_svs(tmp_path / "s.svs", smooth(WIDTH, HEIGHT), compression="jpeg")
    other = tmp_path / "other.tif"
    with tifffile.TiffWriter(other) as writer:
        writer.write(
            solid(side, side), tile=(side, side), photometric="rgb", compression="jpeg", compressionargs={"level": 1}
        )
    with tifffile.TiffFile(other) as tiff:
        tiff.filehandle.seek(tiff.pages[0].dataoffsets[0])
        data = tiff.filehandle.read(tiff.pages[0].databytecounts[0])
    content = bytearray(whole.read_bytes())
    with tifffile.TiffFile(whole) as tiff:
        start = tiff.pages[0].dataoffsets[0]
    content[start : start + len(data)] = data
    (tmp_path / "lies.svs").write_bytes(content)
    with tiff_reader(tmp_path / "lies.svs") as tiff, pytest.raises(RegionUnreadableError):
        tiff.read_region(0, RectPx(0, 0, 100, 100))


def test_readers_that_share_a_cache_decode_a_tile_once(tmp_path, monkeypatch):
    path = write_svs(tmp_path / "s.svs", smooth(WIDTH, HEIGHT), compression="jpeg")
    decoded = []
    original = _TiledPage.decoded
    monkeypatch.setattr(_TiledPage, "decoded", lambda self, data: decoded.append(1) or original(self, data))
    cache = TileCache()
    with tiff_reader(path, cache) as first, tiff_reader(path, cache) as second:
        for reader in (first, second, first):
            reader.read_region(0, RectPx(0, 0, 300, 300))
    assert len(decoded) == 4


@pytest.mark.parametrize("compression", ["jpeg", "aperio_jp2000_rgb"])
def test_damage_is_judged_as_openslide_judges_it(tmp_path, compression):
    """Bits flipped, bytes zeroed, data cut short: the same pixels, or none, from both."""
    whole = write_svs(tmp_path / "whole.svs", smooth(512, 512), compression=compression)
    with tifffile.TiffFile(whole) as tiff:
        start, count = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
    rng, rect, path = np.random.default_rng(5), RectPx(256, 0, 256, 256), tmp_path / "damaged.svs"
    unreadable = 0
    for i in range(60):
        content = bytearray(whole.read_bytes())
        at = start + int(rng.integers(0, count - 16))
        if i % 3 == 0:
            content[at] ^= 1 << int(rng.integers(8))
        else:
            end = at + 16 if i % 3 == 1 else start + count
            content[at:end] = bytes(end - at)
        path.write_bytes(content)
        tiff, openslide = (_pixels_or_none(reader, path, rect) for reader in (tiff_reader, OpenSlideReader))
        assert (tiff is None) == (openslide is None)
        if tiff is None:
            unreadable += 1
        else:
            np.testing.assert_array_equal(tiff, openslide)
    assert 0 < unreadable < 60


def _pixels_or_none(reader_class, path, rect):
    try:
        with reader_class(path) as reader:
            return reader.read_region(0, rect)[..., :3]
    except RegionUnreadableError:
        return None
