"""Tile pixels against naive transcriptions on whole images, and that nothing about how they are read shows in them."""

import math
import threading
import tracemalloc
from contextlib import contextmanager
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from slides_for_tests import (
    ArraySlide,
    facts_of,
    noise,
    reading,
    smooth,
    solid,
    with_damaged_tile,
    write_image,
    write_tiff,
)

from melanoma_infer.engines.frames import Frames
from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx, Scale
from melanoma_infer.records import Tile
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.choice import TileSource
from melanoma_infer.slides.formats import open_reader
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.grid import tile_geometry
from melanoma_infer.tiles.pixels import read_tile, resized
from melanoma_infer.tiles.plan import SlidePlan
from melanoma_infer.tiles.read_plan import ReadPlan, read_plan
from melanoma_infer.tiles.reading import read_tiles

QUICK = settings(deadline=None, max_examples=60, derandomize=True)
BAND_BYTES = "melanoma_infer.tiles.pixels.BAND_BYTES"


def tile_at(x, y, width, height=None, *, slide=None, index=0):
    rect = RectPx(x, y, width, height or width)
    padded = 0.0 if slide is None else 1 - rect.within(slide.facts.size_l0).area / rect.area
    return Tile(index, rect, 1.0, padded)


def plan_of(*, level=0, downsample=1.0, block=1, tile_px=16, equalised=False):
    return ReadPlan(level, downsample, block, tile_px, equalised)


def read(slide, tile, plan):
    with reading(slide) as reader:
        return read_tile(reader, tile, plan)


def planned(sizes, *, um=0.5, tile_um=256.0, tile_px=64, **card):
    facts = facts_of(sizes)
    card = colour_rule_card(tile_um=tile_um, tile_px=tile_px, **card)
    return read_plan(facts, Scale(um, um), tile_geometry(card, Settings()), card)


PYRAMID = [(4096, 2048), (2048, 1024), (512, 256), (256, 128)]


@pytest.mark.parametrize(
    ("um_per_px", "level"), [(0.4, 0), (0.5, 0), (0.99, 0), (1.0, 1), (3.99, 1), (4.0, 2), (7.9, 2), (8.0, 3), (50, 3)]
)
def test_the_level_read_is_the_lowest_that_is_not_coarser_than_the_tile(um_per_px, level):
    plan = planned(PYRAMID, tile_um=64 * um_per_px)
    assert (plan.level, plan.downsample) == (level, (1, 2, 8, 16)[level])


def test_a_card_may_ask_for_level_0():
    assert planned(PYRAMID, tile_um=64 * 8.0, read_from="level0").level == 0


@pytest.mark.parametrize(
    ("shrink", "block"), [(0.5, 1), (1.0, 1), (2.0, 1), (3.99, 1), (4.0, 2), (5.99, 2), (6.0, 3), (11.72, 5)]
)
def test_blocks_have_half_the_side_of_the_shrink(shrink, block):
    level0_only = [(4096, 2048)]
    assert planned(level0_only, tile_um=32 * shrink, resize="reduce-bilinear").block_px == block
    assert planned(level0_only, tile_um=32 * shrink, resize="pillow-bilinear").block_px == 1


def test_tiles_too_coarse_for_the_slides_only_level_are_refused():
    with pytest.raises(UsageError, match="too coarse"):
        planned([(4096, 2048)], um=0.25, tile_um=64 * 0.25 * 2 * 258, resize="reduce-bilinear")


@QUICK
@given(
    x=st.integers(0, 40),
    y=st.integers(0, 30),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    px=st.integers(1, 40),
)
def test_pillow_bilinear_at_level_0_is_pillows_crop_and_resize(x, y, width, height, px):
    pixels = noise(100, 90)
    tile = read(ArraySlide(pixels), tile_at(x, y, width, height), plan_of(tile_px=px))
    crop = Image.fromarray(pixels).crop((x, y, x + width, y + height))
    np.testing.assert_array_equal(tile.pixels, columns_then_rows(crop, px, (0, 0, width, height)))
    assert tile.padded_fraction == 0


def columns_then_rows(image, px, box):
    """Pillow's bilinear; in one call some versions begin with the rows, and the bytes may differ by a level."""
    across = image.resize((px, image.height), Image.Resampling.BILINEAR, box=(box[0], 0, box[2], image.height))
    return np.asarray(across.resize((px, px), Image.Resampling.BILINEAR, box=(0, box[1], px, box[3])))


def naive_reduced(level, k, background, margin):
    """Means of all k × k blocks of an image on a background, blocks aligned to its (0, 0), rounded half up; and where
    (0, 0) lies among them.
    """
    height, width = (math.ceil(side / k) * k for side in level.shape[:2])
    canvas = np.empty((height + 2 * margin * k, width + 2 * margin * k, 3), np.int64)
    canvas[:] = background
    canvas[margin * k : margin * k + level.shape[0], margin * k : margin * k + level.shape[1]] = level
    sums = canvas.reshape(canvas.shape[0] // k, k, canvas.shape[1] // k, k, 3).sum(axis=(1, 3))
    return ((2 * sums + k * k) // (2 * k * k)).astype(np.uint8)


def naive_tile(level, rect_l0, plan, background):
    """The read plan on the whole image: block means, then Pillow's bilinear with the tile's fractional rect."""
    margin, side = 80, plan.downsample * plan.block_px
    edges = [edge / side for edge in (rect_l0.x, rect_l0.y, rect_l0.right, rect_l0.bottom)]
    left, top, right, bottom = math.floor(edges[0]), math.floor(edges[1]), math.ceil(edges[2]), math.ceil(edges[3])
    whole = naive_reduced(level, plan.block_px, background, margin)
    blocks = whole[top + margin : bottom + margin, left + margin : right + margin]
    fractional = (edges[0] - left, edges[1] - top, edges[2] - left, edges[3] - top)
    return columns_then_rows(Image.fromarray(blocks), plan.tile_px, fractional)


@QUICK
@given(
    x=st.integers(0, 95),
    y=st.integers(0, 75),
    width=st.integers(2, 80),
    height=st.integers(2, 80),
    block=st.integers(1, 9),
    downsample=st.sampled_from([1, 2, 4]),
    px=st.integers(1, 20),
    background=st.sampled_from([(255, 255, 255), (240, 230, 7)]),
)
def test_reduce_bilinear_is_blocks_aligned_to_the_level_then_bilinear(
    x, y, width, height, block, downsample, px, background
):
    level0 = noise(96, 76, seed=block)
    levels = [level0, level0[::2, ::2], level0[::4, ::4]]
    slide = ArraySlide(*levels, background=background)
    plan = plan_of(level=int(math.log2(downsample)), downsample=float(downsample), block=block, tile_px=px)
    tile = tile_at(x, y, width, height, slide=slide)
    expected = naive_tile(levels[plan.level], tile.rect_l0, plan, background)
    np.testing.assert_array_equal(read(slide, tile, plan).pixels, expected)


def test_blocks_are_aligned_to_the_level_and_not_to_the_tile():
    """Columns 0 1 0 1 … × 100 in blocks of 2: every mean is 50, also of a tile that starts at an odd column."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 1::2] = 100
    tile = read(ArraySlide(pixels), tile_at(3, 0, 8, 8), plan_of(block=2, tile_px=4))
    assert np.unique(tile.pixels).tolist() == [50]


@pytest.mark.parametrize("block", [1, 3])
def test_beyond_the_edge_lies_the_background_and_is_counted(block):
    slide = ArraySlide(solid(24, 24, (10, 20, 30)), background=(250, 240, 230))
    tile = tile_at(12, 12, 24, slide=slide)
    result = read(slide, tile, plan_of(block=block, tile_px=24))
    assert result.padded_fraction == pytest.approx(0.75)
    assert result.pixels[:8, :8].reshape(-1, 3).tolist() == [[10, 20, 30]] * 64
    assert result.pixels[16:, :].reshape(-1, 3).tolist() == [[250, 240, 230]] * (8 * 24)
    assert result.pixels[:, 16:].reshape(-1, 3).tolist() == [[250, 240, 230]] * (8 * 24)


def test_transparent_pixels_have_the_background_and_are_counted():
    rgba = np.full((32, 32, 4), 255, np.uint8)
    rgba[..., :3] = (10, 20, 30)
    rgba[:8, :, 3] = 0
    result = read(ArraySlide(rgba, background=(200, 210, 220)), tile_at(0, 0, 32), plan_of(tile_px=32))
    assert result.padded_fraction == 0.25
    assert np.unique(result.pixels[:8].reshape(-1, 3), axis=0).tolist() == [[200, 210, 220]]
    assert np.unique(result.pixels[8:].reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


@QUICK
@given(x=st.integers(0, 31), y=st.integers(0, 31), side=st.integers(1, 40), block=st.integers(1, 7))
def test_the_blank_share_of_a_tile_is_a_share_also_where_all_is_transparent(x, y, side, block):
    slide = ArraySlide(np.zeros((32, 32, 4), np.uint8))
    result = read(slide, tile_at(x, y, side, slide=slide), plan_of(block=block))
    assert 0 < result.padded_fraction <= 1


@QUICK
@given(
    rows=st.integers(1, 6),
    x=st.integers(0, 30),
    y=st.integers(0, 30),
    side=st.integers(20, 90),
    block=st.integers(2, 7),
    alpha=st.booleans(),
)
def test_bands_change_nothing(rows, x, y, side, block, alpha):
    pixels = np.random.default_rng(block).integers(0, 256, (96, 96, 4), dtype=np.uint8)
    if not alpha:
        pixels[..., 3] = 255
    slide, tile, plan = ArraySlide(pixels), tile_at(x, y, side), plan_of(block=block)
    whole = read(slide, tile, plan)
    slide.reads.clear()
    with patch(BAND_BYTES, rows * 4 * side * block):
        banded = read(slide, tile, plan)
    assert len(slide.reads) >= min(2, math.ceil(min(side, 96 - y) / (block * rows)) - 1)
    np.testing.assert_array_equal(banded.pixels, whole.pixels)
    assert banded.padded_fraction == whole.padded_fraction


def test_a_tile_of_huge_scale_stays_within_the_memory_of_its_bands():
    pixels = np.broadcast_to(np.array([9, 99, 199], np.uint8), (4000, 4000, 3))
    slide = ArraySlide(np.ascontiguousarray(pixels))
    plan = plan_of(block=50, tile_px=40)
    with patch(BAND_BYTES, 1 << 20):
        read(slide, tile_at(0, 0, 400), plan)
        slide.reads.clear()
        tracemalloc.start()
        tile = read(slide, tile_at(0, 0, 4000), plan)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(slide.reads) == 80
    assert max(4 * rect.area for _, rect in slide.reads) <= 1 << 20
    assert peak < 4 << 20  # one piece is 48 MB
    assert np.unique(tile.pixels.reshape(-1, 3), axis=0).tolist() == [[9, 99, 199]]


@pytest.mark.parametrize("block", [1, 3])
def test_histogram_equalisation_is_pillows_on_the_resized_tile(block):
    slide = ArraySlide(noise(60, 60) // 3 + 60)
    plain = read(slide, tile_at(3, 5, 48), plan_of(block=block)).pixels
    equalised = read(slide, tile_at(3, 5, 48), plan_of(block=block, equalised=True)).pixels
    np.testing.assert_array_equal(equalised, np.asarray(ImageOps.equalize(Image.fromarray(plain))))
    assert np.ptp(equalised) > np.ptp(plain)


def test_a_card_asks_for_equalisation():
    assert planned(PYRAMID, histogram_equalisation=True).equalised
    assert not planned(PYRAMID).equalised


def grid(width, height, side):
    corners = [(x, y) for y in range(0, height, side) for x in range(0, width, side)]
    return [tile_at(x, y, side, index=i) for i, (x, y) in enumerate(corners)]


@contextmanager
def stream(path, tiles, plan, *, threads, opened=None, take_frame=None, resizes=True):
    """The tiles of a slide, read by its own reader; each handle that is opened is noted."""

    def opener(path, _watch):
        if opened is not None:
            opened.append(path)
        return open_reader(path)

    with open_slide(path) as slide:
        source = TileSource(slide.facts, opener)
        whole = SlidePlan(slide.facts, None, None, None, None, None, plan, tuple(tiles), source)
        feed = Feed(threads, take_frame=take_frame, resizes=resizes and take_frame is not None)
        with read_tiles(slide, whole, feed) as reads:
            yield reads


def test_an_engine_that_resizes_gets_native_tiles_and_the_gallery_resized_ones(tmp_path):
    path, tiles, plan = (
        write_image(tmp_path / "slide.png", noise(200, 200)),
        some_grid(),
        plan_of(downsample=1.0, tile_px=16),
    )
    expected = read_all(path, tiles, plan, threads=1)
    with stream(path, tiles, plan, threads=3, take_frame=Frames(np.empty).take) as reads:
        for read, cpu in zip(reads, expected, strict=True):
            assert (read.tile, read.pixels) == (cpu.tile, None)
            assert np.array_equal(resized(read.native), cpu.pixels)
        assert np.array_equal(reads.read([tiles[2]])[0].pixels, expected[2].pixels)


def test_an_engine_that_does_not_resize_gets_resized_tiles_in_its_own_memory_one_after_the_other(tmp_path):
    path, tiles, plan = write_image(tmp_path / "slide.png", noise(400, 400)), grid(400, 400, 50), plan_of()
    expected, frames = read_all(path, tiles, plan, threads=1), Frames(np.empty)
    with stream(path, tiles, plan, threads=3, take_frame=frames.take, resizes=False) as reads:
        held = list(reads)
        assert np.array_equal(reads.read([tiles[2]])[0].pixels, expected[2].pixels)
    for read, cpu in zip(held, expected, strict=True):
        assert read.given is read.frame
        assert read.frame.memory.tobytes() == cpu.pixels.tobytes() == read.pixels.tobytes()
        assert np.shares_memory(read.pixels, read.frame.memory)
    assert all(later.frame.follows(earlier.frame) for earlier, later in pairwise(held))


def test_an_unreadable_tile_leaves_its_frame_unused(tmp_path, jpeg_tiff):
    damaged = with_damaged_tile(jpeg_tiff, tmp_path / "damaged.tif", tile=4)
    tiles = grid(700, 530, 128)
    with stream(damaged, tiles, plan_of(), threads=2, take_frame=Frames(np.empty).take, resizes=False) as reads:
        given = [read.given for read in reads]
    assert sum(each is None for each in given) == 4
    assert sum(each is not None for each in given) == len(tiles) - 4


def test_equalised_tiles_are_resized_where_they_are_read(tmp_path):
    path, plan = write_image(tmp_path / "slide.png", noise(200, 200)), plan_of(equalised=True)
    with stream(path, some_grid(), plan, threads=1, take_frame=Frames(np.empty).take) as reads:
        assert all(read.native is None and read.pixels is not None for read in reads)


def some_grid():
    return [tile_at(50 * i, 30 * i, 50, index=i) for i in range(4)]


def read_all(path, tiles, plan, *, threads):
    with stream(path, tiles, plan, threads=threads) as reads:
        return list(reads)


def mminfer_threads():
    return [each.name for each in threading.enumerate() if each.name.startswith("mminfer-")]


@pytest.fixture(scope="module")
def jpeg_tiff(tmp_path_factory):
    return write_tiff(tmp_path_factory.mktemp("slides") / "s.tif", smooth(700, 530), compression="jpeg", levels=2)


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("level", [0, 1])
def test_one_two_and_many_threads_give_the_same_bytes_in_the_order_asked_for(jpeg_tiff, block, level):
    tiles = grid(700, 530, 90)[::-1]
    plan = plan_of(level=level, downsample=float(2**level), block=block)
    runs = [read_all(jpeg_tiff, tiles, plan, threads=threads) for threads in (1, 2, 4, 64)]
    for run in runs:
        assert [tile.tile for tile in run] == tiles
        assert [tile.pixels.tobytes() for tile in run] == [tile.pixels.tobytes() for tile in runs[0]]
    assert len({tile.pixels.tobytes() for tile in runs[0]}) == len(tiles)


def test_no_more_than_two_tiles_a_thread_are_read_ahead(jpeg_tiff, monkeypatch):
    begun = []

    def noted(slide, tile, plan):
        begun.append(tile.index)
        return read_tile(slide, tile, plan)

    monkeypatch.setattr("melanoma_infer.tiles.reading.read_tile", noted)
    tiles = grid(700, 530, 50)
    with stream(jpeg_tiff, tiles, plan_of(), threads=4) as reads:
        next(iter(reads))
    assert len(begun) <= 2 * 4 + 1 < len(tiles)


def test_nothing_is_opened_and_no_thread_starts_before_the_first_tile_is_asked_for(jpeg_tiff, monkeypatch):
    opened = []
    with stream(jpeg_tiff, grid(700, 530, 50), plan_of(), threads=2, opened=opened) as reads:
        assert (opened, mminfer_threads()) == ([], [])
        reads.wait()
        assert 1 <= len(opened) <= 2
        list(reads)
        assert len(opened) <= 2  # a handle a thread, and no more
    assert mminfer_threads() == []


def test_tiles_can_be_read_again(jpeg_tiff):
    for side in (50, 400):  # too many tiles to keep, and few
        tiles = grid(700, 530, side)
        with stream(jpeg_tiff, tiles, plan_of(), threads=2) as reads:
            seen = list(reads)
            for at, again in zip((3, 0, 1), reads.read([tiles[3], tiles[0], tiles[1]]), strict=True):
                assert again.tile == tiles[at]
                np.testing.assert_array_equal(again.pixels, seen[at].pixels)


def test_an_unreadable_tile_has_no_pixels_and_the_others_are_unchanged(tmp_path, jpeg_tiff):
    damaged = with_damaged_tile(jpeg_tiff, tmp_path / "damaged.tif", tile=4)  # columns and rows 256 … 511
    tiles = grid(700, 530, 128)
    whole = read_all(jpeg_tiff, tiles, plan_of(), threads=2)
    run = read_all(damaged, tiles, plan_of(), threads=2)
    missing = [tile.tile.rect_l0 for tile in run if tile.pixels is None]
    assert missing == [RectPx(x, y, 128, 128) for y in (256, 384) for x in (256, 384)]
    for seen, expected in zip(run, whole, strict=True):
        if seen.pixels is not None:
            np.testing.assert_array_equal(seen.pixels, expected.pixels)


def test_a_plain_image_is_read_like_a_slide_of_one_level(tmp_path):
    pixels = noise(90, 70)
    path = write_image(tmp_path / "image.png", pixels)
    (tile,) = read_all(path, [tile_at(20, 30, 32)], plan_of(tile_px=32), threads=4)
    np.testing.assert_array_equal(tile.pixels, pixels[30:62, 20:52])
