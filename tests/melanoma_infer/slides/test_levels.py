"""Which pyramid levels are read, and at which downsample."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from slides_for_tests import smooth, solid

from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.slides.levels import Level, usable_levels
from melanoma_infer.slides.openslide_reader import OpenSlideReader


def write_pyramid(path, levels, *, tile=64):
    with tifffile.TiffWriter(path) as writer:
        for number, pixels in enumerate(levels):
            writer.write(pixels, tile=(tile, tile), photometric="rgb", metadata=None, subfiletype=1 if number else 0)
    return path


def padded(pixels, *, tile=64):
    height, width = (-(-side // tile) * tile for side in pixels.shape[:2])
    canvas = solid(width, height, (255, 255, 255))
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas


def reductions(pixels, factors):
    return [np.ascontiguousarray(pixels[::factor, ::factor]) for factor in factors]


@pytest.mark.parametrize(("width", "height"), [(1100, 1300), (1290, 1290)])  # a square's ratios agree and are wrong
@pytest.mark.parametrize("factors", [(1, 2, 4), (1, 4, 16), (1, 2, 4, 8, 16)])
def test_levels_padded_to_whole_tiles_are_read_at_their_true_downsample(tmp_path, width, height, factors):
    exact = reductions(smooth(width, height), factors)
    path = write_pyramid(tmp_path / "p.tif", [exact[0], *map(padded, exact[1:])])
    with OpenSlideReader(path) as reader:
        assert reader.facts.level_downsamples == factors
        for level, pixels in enumerate(exact):
            assert reader.facts.level_sizes[level] == SizePx(*pixels.shape[1::-1])
            whole = reader.read_region(level, RectPx(0, 0, pixels.shape[1], pixels.shape[0]))
            assert np.abs(whole[..., :3].astype(int) - pixels).max() == 0  # at the origin nothing is interpolated


@pytest.mark.parametrize("factors", [(1, 3, 4), (1, 2, 12)])
def test_padded_levels_of_unequal_steps_are_not_read(tmp_path, factors):
    exact = reductions(smooth(1100, 1300), factors)
    path = write_pyramid(tmp_path / "p.tif", [exact[0], *map(padded, exact[1:])])
    with OpenSlideReader(path) as reader:
        assert reader.facts.level_downsamples == (1.0,)
        assert reader.facts.level_sizes == (SizePx(1100, 1300),)


@pytest.mark.parametrize(
    "sizes",
    [
        [(46000, 32914), (11500, 8228), (2875, 2057), (1437, 1028)],  # Aperio, rounded down
        [(8292, 8492), (4146, 4246), (2073, 2123), (1037, 1062)],  # rounded up
        [(8192, 8192), (4096, 4096), (2048, 2048)],
        [(78000, 30462), (19500, 7615), (4875, 1903), (2437, 951)],
    ],
)
def test_sizes_that_rounding_explains_are_used_as_openslide_says(sizes):
    levels = [
        Level(number, SizePx(*size), SizePx(256, 256), (sizes[0][0] / size[0] + sizes[0][1] / size[1]) / 2)
        for number, size in enumerate(sizes)
    ]
    assert usable_levels(levels) == levels


def test_a_downsample_that_the_format_states_is_believed():
    size, tile = SizePx(1000, 700), SizePx(512, 512)
    levels = [Level(0, size, tile, 1.0), Level(1, SizePx(512, 512), tile, 4.0)]
    assert usable_levels(levels) == levels


def test_a_level_of_one_whole_tile_may_be_padded_and_is_not_used():
    tile = SizePx(512, 512)
    levels = [Level(0, SizePx(4096, 4096), tile, 1.0), Level(1, tile, tile, 8.0)]
    assert usable_levels(levels) == levels[:1]
