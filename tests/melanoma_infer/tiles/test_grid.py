"""The grid against a naive transcription of its formula, and tissue areas against brute force."""

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.records import Tissue
from melanoma_infer.settings import Settings
from melanoma_infer.tiles.grid import (
    Geometry,
    TissueArea,
    place_tiles,
    require_few_enough,
    require_sensible_tiles,
    tile_geometry,
)

QUICK = settings(deadline=None, max_examples=60, derandomize=True)


def tissue_of(mask, px_l0=1.0):
    nothing = np.zeros_like(mask)
    return Tissue(mask, nothing, nothing, px_l0, None, 255.0, True, "mask")


def geometry_of(tile_um, stride_um=None):
    return Geometry(tile_um=tile_um, stride_um=stride_um or tile_um, tile_px=64, matches_card=True)


HALF = Scale(0.5, 0.5)


def placed(width, height, mask=None, *, scale=HALF, tile_um=8.0, stride_um=None, px_l0=1.0):
    mask = np.ones((height, width), bool) if mask is None else mask
    return place_tiles(SizePx(width, height), scale, tissue_of(mask, px_l0), geometry_of(tile_um, stride_um))


def naive_starts(length, stride_um, um_per_px):
    """round(i · stride / mpp) for i = 0, 1, 2 … as far as it lies inside."""
    starts, i = [], 0
    while (start := round(i * stride_um / um_per_px)) < length:
        if start not in starts:
            starts.append(start)
        i += 1
    return starts


def naive_grid(size, scale, mask, geometry):
    """DESIGN 4.4 word by word, on a mask of level-0 pixels: rectangles, tissue and padding by counting pixels."""
    width, height = round(geometry.tile_um / scale.x_um), round(geometry.tile_um / scale.y_um)
    rows = []
    for y in naive_starts(size.height, geometry.stride_um, scale.y_um):
        for x in naive_starts(size.width, geometry.stride_um, scale.x_um):
            inside = mask[y : y + height, x : x + width]
            tissue_mm2 = int(inside.sum()) * scale.x_um * scale.y_um / 1e6
            if inside.any() and (10 * int(inside.sum()) >= width * height or tissue_mm2 >= 0.1):
                rows.append((RectPx(x, y, width, height), inside.sum() / (width * height), inside.size))
    return rows


scales = st.tuples(st.floats(0.2, 1.0), st.floats(0.2, 1.0)).map(lambda um: Scale(*um))


@QUICK
@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    scale=scales,
    tile_um=st.floats(2.0, 30.0),
    stride_um=st.floats(0.1, 40.0),
    seed=st.integers(0, 99),
    density=st.sampled_from([0.03, 0.1, 0.5, 1.0]),
)
def test_the_grid_is_the_formulas(width, height, scale, tile_um, stride_um, seed, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    size, geometry = SizePx(width, height), geometry_of(tile_um, stride_um)
    tiles = place_tiles(size, scale, tissue_of(mask), geometry)
    expected = naive_grid(size, scale, mask, geometry)
    assert [tile.rect_l0 for tile in tiles] == [rect for rect, _, _ in expected]
    for tile, (rect, fraction, inside_px) in zip(tiles, expected, strict=True):
        assert tile.tissue_fraction == pytest.approx(fraction, abs=1e-9)
        assert tile.outside_fraction == pytest.approx(1 - inside_px / rect.area, abs=1e-12)


@QUICK
@given(width=st.integers(1, 90), height=st.integers(1, 90), scale=scales, stride_um=st.floats(0.5, 40.0))
def test_tiles_start_inside_the_slide_and_are_numbered_by_miny_then_minx(width, height, scale, stride_um):
    tiles = placed(width, height, scale=scale, stride_um=stride_um)
    assert [tile.index for tile in tiles] == list(range(len(tiles)))
    corners = [(tile.rect_l0.y, tile.rect_l0.x) for tile in tiles]
    assert corners == sorted(set(corners))
    assert all(0 <= y < height and 0 <= x < width for y, x in corners)


def test_tiles_that_touch_count_every_pixel_of_tissue_once():
    mask = np.zeros((50, 70), bool)
    mask[3:45, 5:61] = True
    tiles = placed(70, 50, mask, tile_um=8.0)
    covered = np.zeros((80, 100), int)
    for tile in tiles:
        rect = tile.rect_l0
        covered[rect.y : rect.bottom, rect.x : rect.right] += 1
    assert covered.max() == 1
    assert sum(tile.tissue_fraction * tile.rect_l0.area for tile in tiles) == pytest.approx(42 * 56)


def test_padding_is_the_share_beyond_the_slides_edge():
    tiles = placed(20, 12, tile_um=8.0)  # tiles of 16 px
    assert [(t.rect_l0.x, t.rect_l0.y) for t in tiles] == [(0, 0), (16, 0)]
    assert [t.outside_fraction for t in tiles] == [pytest.approx(4 / 16), pytest.approx(1 - 4 * 12 / 256)]
    assert [t.tissue_fraction for t in tiles] == [12 / 16, 4 * 12 / 256]


@pytest.mark.parametrize(("tissue_px", "is_kept"), [(40, True), (39, False), (1, False), (0, False)])
def test_a_small_tile_is_kept_from_10_percent_of_tissue_on(tissue_px, is_kept):
    mask = np.zeros((20, 20), bool)
    mask.flat[:tissue_px] = True
    assert len(placed(20, 20, mask, scale=Scale(0.5, 0.5), tile_um=10.0)) == is_kept


@pytest.mark.parametrize(("tissue_px", "is_kept"), [(16, True), (15, False)])
def test_a_large_tile_is_kept_from_0_1_mm2_of_tissue_on(tissue_px, is_kept):
    """3 mm tiles of 9 mm²: 10 % would be 0.9 mm². A mask pixel of 160 l0 px at 0.5 µm is 0.0064 mm²."""
    mask = np.zeros((38, 38), bool)
    mask[5, 5 : 5 + tissue_px] = True
    tiles = placed(6000, 6000, mask, tile_um=3000.0, px_l0=160.0)
    assert len(tiles) == is_kept
    assert all(tile.tissue_fraction < 0.1 for tile in tiles)


def test_a_slide_without_tissue_has_no_tiles():
    assert placed(40, 40, np.zeros((40, 40), bool)) == []


def test_a_slide_smaller_than_a_tile_has_one():
    tiles = placed(5, 3, tile_um=8.0, stride_um=8.0, mask=np.ones((3, 5), bool), scale=Scale(1.0, 1.0))
    assert [tile.rect_l0 for tile in tiles] == [RectPx(0, 0, 8, 8)]


def test_x_and_y_have_each_their_own_scale():
    tiles = placed(64, 64, scale=Scale(0.5, 0.25), tile_um=8.0)
    assert {(t.rect_l0.width, t.rect_l0.height) for t in tiles} == {(16, 32)}
    assert sorted({t.rect_l0.x for t in tiles}) == [0, 16, 32, 48]
    assert sorted({t.rect_l0.y for t in tiles}) == [0, 32]


def test_starts_follow_the_distance_in_um_and_do_not_drift():
    """0.499 µm/px: the tenth tile starts at round(10 · 100 / 0.499), not at 10 · round(100 / 0.499)."""
    tiles = placed(2400, 200, scale=Scale(0.499, 0.499), tile_um=100.0)
    first_row = [t.rect_l0.x for t in tiles if t.rect_l0.y == 0]
    assert first_row[10] == 2004
    assert 10 * round(100 / 0.499) == 2000


def test_twice_the_um_per_px_halves_the_pixels_and_keeps_the_tiles():
    fine = placed(320, 240, scale=Scale(0.25, 0.25), tile_um=8.0)
    coarse = placed(160, 120, scale=Scale(0.5, 0.5), tile_um=8.0)
    doubled = [RectPx(2 * t.rect_l0.x, 2 * t.rect_l0.y, 2 * t.rect_l0.width, 2 * t.rect_l0.height) for t in coarse]
    assert [t.rect_l0 for t in fine] == doubled


def test_a_finer_stride_adds_tiles_and_keeps_the_old_ones():
    whole, finer = placed(64, 64, stride_um=8.0), placed(64, 64, stride_um=4.0)
    assert {t.rect_l0 for t in whole} < {t.rect_l0 for t in finer}
    assert len(finer) == 64


@pytest.mark.parametrize("stride_um", [0.3, 0.1, 0.25])
def test_a_stride_below_one_pixel_starts_a_tile_at_every_pixel(stride_um):
    tiles = placed(6, 5, scale=Scale(0.5, 0.5), tile_um=1.0, stride_um=stride_um)
    assert [(t.rect_l0.y, t.rect_l0.x) for t in tiles] == [(y, x) for y in range(5) for x in range(6)]


def overlaps(start, end, count, px):
    """How much of each pixel of a side lies between start and end, in pixels."""
    return np.array([max(0.0, min(end, (i + 1) * px) - max(start, i * px)) / px for i in range(count)])


@QUICK
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    px_l0=st.sampled_from([1.0, 2.5, 4.016129032258064, 16.0]),
    rect=st.tuples(st.integers(-20, 60), st.integers(-20, 60), st.integers(0, 70), st.integers(0, 70)),
    seed=st.integers(0, 99),
)
def test_tissue_in_a_rectangle_is_exact_at_fractions_of_mask_pixels(shape, px_l0, rect, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.5
    x, y, width, height = rect
    rows, columns = overlaps(y, y + height, shape[0], px_l0), overlaps(x, x + width, shape[1], px_l0)
    area = TissueArea(mask, px_l0)
    x, y, width, height = rect
    found = area.in_row(y, y + height, np.array([x]), np.array([x + width]))
    assert found == pytest.approx(rows @ mask @ columns * px_l0**2, abs=1e-6)


def test_geometry_is_the_cards_unless_something_else_is_asked_for():
    card = colour_rule_card(tile_um=256.0)
    own = tile_geometry(card, Settings())
    assert (own.tile_um, own.stride_um, own.tile_px, own.matches_card) == (256.0, 256.0, 64, True)
    assert (own.um_per_px, own.tile_mm2) == (4.0, pytest.approx(0.065536))


@pytest.mark.parametrize(
    ("changes", "matches", "tile_mm2"),
    [
        ({"stride_um": 128.0}, True, 0.128**2),
        ({"stride_um": 256.0}, True, 0.256**2),
        ({"stride_um": 300.0}, False, 0.256**2),
        ({"tile_um": 256.0}, True, 0.256**2),
        ({"tile_um": 512.0}, False, 0.512**2),
        ({"tile_um": 512.0, "stride_um": 128.0}, False, 0.128**2),
    ],
)
def test_a_finer_stride_is_still_the_cards_geometry_and_another_tile_is_not(changes, matches, tile_mm2):
    geometry = tile_geometry(colour_rule_card(tile_um=256.0), Settings(**changes))
    assert geometry.matches_card == matches
    assert geometry.tile_mm2 == pytest.approx(tile_mm2)


@pytest.mark.parametrize(
    ("tile_um", "stride_um", "message"),
    [
        (1.0, 1.0, r"--tile-um 1 is too small.* 2 × 2 of its pixels.*8 or more"),
        (7.0, 7.0, r"14 × 14"),
        (256.0, 1.0, r"1,647,240 places"),
        (256.0, 0.01, r"6,586,740 places"),
    ],
)
def test_tiles_of_a_few_pixels_or_by_the_hundred_thousand_are_refused(tile_um, stride_um, message):
    with pytest.raises(UsageError, match=message):
        require_sensible_tiles(geometry_of(tile_um, stride_um), SizePx(2220, 2967), HALF)


def test_small_and_many_tiles_within_reason_are_allowed():
    require_sensible_tiles(geometry_of(8.0), SizePx(2220, 2967), HALF)
    require_sensible_tiles(geometry_of(64.0), SizePx(120_000, 50_000), HALF)
    require_few_enough(200_000, geometry_of(64.0))
    with pytest.raises(UsageError, match="200,001 tiles with tissue"):
        require_few_enough(200_001, geometry_of(64.0))
