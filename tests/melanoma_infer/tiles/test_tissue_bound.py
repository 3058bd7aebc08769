"""No tile that the file path scores is left out by what is known of a part of the plane."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans_for_tests import section

from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.records import Tissue
from melanoma_infer.tiles.grid import Geometry, place_tiles
from melanoma_infer.tiles.plane import Plane
from melanoma_infer.tiles.tissue import tissue_of_plane
from melanoma_infer.tiles.tissue_bound import TissueBound

SCALE = Scale(0.5, 0.5)
PX_L0 = 16


def planned(rgb, unread, tile_um) -> tuple[Tissue, set[RectPx]]:
    size = SizePx(rgb.shape[1] * PX_L0, rgb.shape[0] * PX_L0)
    tissue = tissue_of_plane(Plane(rgb, unread, float(PX_L0)), SCALE, size)
    tiles = place_tiles(size, SCALE, tissue, Geometry(tile_um, tile_um, 64, True))
    return tissue, {tile.rect_l0 for tile in tiles}


def kept(rgb, rect) -> bool:
    """Whether a tile may hold tissue by what is in its window alone."""
    bound, plane = TissueBound(PX_L0, SCALE), SizePx(rgb.shape[1], rgb.shape[0])
    window = bound.window(rect, plane)
    part = rgb[window.y : window.bottom, window.x : window.right]
    return bound.may_hold_tissue(rect, plane, part, np.ones(part.shape[:2], bool))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), tile_um=st.sampled_from([33.0, 64.0, 150.0, 400.0]), dust=st.integers(0, 40))
def test_every_planned_tile_may_hold_tissue(seed, tile_um, dust):
    rng = np.random.default_rng(seed)
    rgb = section(180, 150, seed=seed)
    for y, x in rng.integers(0, 150, (dust, 2)).tolist():  # rings around holes of about the largest size that is filled
        r = int(rng.integers(3, 20))
        yy, xx = np.mgrid[:150, :180]
        ring = np.abs(np.hypot(yy - y, xx - x) - r) < 1.2
        rgb[ring] = (200, 120, 170)
    _, tiles = planned(rgb, np.zeros(rgb.shape[:2], bool), tile_um)
    assert all(kept(rgb, rect) for rect in tiles)


@pytest.mark.parametrize("tile_um", [64.0, 256.0])
def test_background_far_from_tissue_is_left_out(tile_um):
    rgb = np.full((300, 400, 3), (240, 238, 241), np.uint8)
    rgb[100:200, 100:200] = (205, 130, 180)
    side = round(tile_um / 0.5)
    assert not kept(rgb, RectPx(4800, 3200, side, side))
    assert not kept(rgb, RectPx(0, 0, side, side))  # in the corner, where the window is cut off
    assert kept(rgb, RectPx(1600, 1600, side, side))
