"""Native tiles: resized they are what the CPU reads, and they are given only where a GPU can resize them."""

import numpy as np
import pytest
from slides_for_tests import ArraySlide, noise, reading

from melanoma_infer.engines.frames import Frames
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.records import Tile
from melanoma_infer.tiles.native import NATIVE_PX_MAX, SHRINK_MAX, NativeSize, native_size, noise_tiles, read_native
from melanoma_infer.tiles.pixels import read_tile, resized
from melanoma_infer.tiles.read_plan import ReadPlan


def grid(side, count=3, *, origin=0, size_l0=10_000):
    """Square tiles beside each other, the first at (origin, origin)."""
    rects = [RectPx(origin + side * x, origin + side * y, side, side) for y in range(count) for x in range(count)]
    return [
        Tile(i, rect, 1.0, 1 - rect.within(SizePx(size_l0, size_l0)).area / rect.area) for i, rect in enumerate(rects)
    ]


def both(slide, tiles, plan, frames=None):
    """Each tile as the CPU reads it, and as it is given to a GPU."""
    frames = frames or Frames(lambda shape, dtype: np.full(shape, 77, dtype))
    size = native_size(plan, tiles)
    with reading(slide) as reader:
        return [
            (read_tile(reader, tile, plan), read_native(reader, tile, plan, size, frames.take(size.nbytes)))
            for tile in tiles
        ]


@pytest.mark.parametrize("downsample", [1.0, 1.003, 1.62])
@pytest.mark.parametrize("block_px", [1, 2, 3])
def test_resized_on_the_cpu_they_are_what_it_reads(downsample, block_px):
    tiles = grid(50, origin=3)
    for cpu, native in both(ArraySlide(noise(200, 200)), tiles, ReadPlan(0, downsample, block_px, 16, False)):
        assert native.pixels is None
        assert np.array_equal(resized(native.native), cpu.pixels)
        assert native.padded_fraction == cpu.padded_fraction


def test_all_of_a_slide_s_tiles_have_one_shape():
    read = both(ArraySlide(noise(200, 200)), grid(50), ReadPlan(0, 1.62, 1, 16, False))
    assert len({native.native.pixels.shape for _, native in read}) == 1
    assert len({native.native.size for _, native in read}) > 1


def test_edges_and_transparent_pixels_have_the_background_s_colour():
    pixels = np.dstack([noise(70, 70), np.full((70, 70), 255, np.uint8)])
    pixels[20:40, 20:40, 3] = 0
    slide = ArraySlide(pixels, background=(200, 190, 210))
    tiles = grid(40, 2, size_l0=70)
    read = both(slide, tiles, ReadPlan(0, 1.0, 1, 16, False))
    assert [native.native.pixels.shape[2] for _, native in read] == [3, 3, 3, 3]
    for cpu, native in read:
        assert np.array_equal(resized(native.native), cpu.pixels)
        assert native.padded_fraction == cpu.padded_fraction > 0


def test_opaque_rgba_stays_as_the_reader_gives_it():
    pixels = np.dstack([noise(80, 80), np.full((80, 80), 255, np.uint8)])
    for _, native in both(ArraySlide(pixels), grid(40, 2), ReadPlan(0, 1.0, 1, 16, False)):
        assert native.native.pixels.shape[2] == 4


def test_what_cannot_be_read_is_missing():
    slide = ArraySlide(noise(100, 100), damaged_l0=[RectPx(0, 0, 10, 10)])
    read = both(slide, grid(50, 2), ReadPlan(0, 1.0, 1, 16, False))
    assert [native.given is None for _, native in read] == [True, False, False, False]


@pytest.mark.parametrize(
    ("side", "plan", "size"),
    [
        (700, ReadPlan(0, 1.0, 1, 512, False), NativeSize(700, 700)),
        (NATIVE_PX_MAX, ReadPlan(0, 1.0, 2, 512, False), NativeSize(2048, 2048)),
        (NATIVE_PX_MAX + 1, ReadPlan(0, 1.0, 1, 512, False), None),
        (700, ReadPlan(0, 1.0, 1, 512, True), None),
        (16 * SHRINK_MAX, ReadPlan(0, 1.0, 1, 16, False), NativeSize(240, 240)),
        (16 * SHRINK_MAX + 1, ReadPlan(0, 1.0, 1, 16, False), None),
        (16 * SHRINK_MAX + 1, ReadPlan(0, 1.0, 2, 16, False), NativeSize(242, 242)),
    ],
)
def test_large_and_equalised_tiles_are_resized_on_the_cpu(side, plan, size):
    assert native_size(plan, grid(side, 1)) == size


def test_a_slide_without_tiles_has_no_native_ones():
    assert native_size(ReadPlan(0, 1.0, 1, 512, False), []) is None


def test_noise_covers_both_plans_and_both_kinds_of_pixels():
    assert {(tile.block_px, tile.pixels.shape[2]) for tile in noise_tiles(32)} == {(1, 4), (2, 3)}
    assert all(resized(tile).shape == (32, 32, 3) for tile in noise_tiles(32))
