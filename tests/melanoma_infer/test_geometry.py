"""Planes and units: rectangles against sets of pixels, scales against what scanners give."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.geometry import RectPx, Scale, SizePx, l0_from_um

QUICK = settings(deadline=None, max_examples=100, derandomize=True)
whole = st.integers(-12, 12)
length = st.integers(0, 9)


def pixels_of(rect):
    return {(x, y) for x in range(rect.x, rect.right) for y in range(rect.y, rect.bottom)}


def test_the_far_edges_of_a_rectangle_are_exclusive_and_its_area_counts_its_pixels():
    rect = RectPx(-3, 5, 7, 2)
    assert (rect.right, rect.bottom, rect.area) == (4, 7, 14)
    assert len(pixels_of(rect)) == 14


@QUICK
@given(x=whole, y=whole, width=length, height=length, plane_width=length, plane_height=length)
def test_within_holds_exactly_the_pixels_that_lie_in_the_plane(x, y, width, height, plane_width, plane_height):
    rect, plane = RectPx(x, y, width, height), SizePx(plane_width, plane_height)
    inside = rect.within(plane)
    assert pixels_of(inside) == pixels_of(rect) & pixels_of(RectPx(0, 0, plane_width, plane_height))
    assert inside.width >= 0
    assert inside.height >= 0
    assert inside.within(plane) == inside


@pytest.mark.parametrize(
    ("x_um", "y_um", "says"),
    [
        (0.1, 0.1, None),
        (1.1, 1.1, None),
        (0.25, 0.2549, None),
        (0.2549, 0.25, None),
        (0.0999, 0.0999, "outside"),
        (1.1001, 1.1001, "outside"),
        (0.25, 27.2, "outside"),
        (0.25, 0.2551, "more than 2% apart"),
        (0.2551, 0.25, "more than 2% apart"),
        (0.0, 0.0, "outside"),
        (-0.25, -0.25, "outside"),
        (math.nan, 0.25, "outside"),
        (0.25, math.inf, "outside"),
    ],
)
def test_a_scale_is_implausible_outside_a_scanners_range_or_where_x_and_y_disagree(x_um, y_um, says):
    why = Scale(x_um, y_um).implausible
    assert why is None if says is None else says in str(why)


def test_a_pixels_area_uses_both_scales_and_the_mean_is_their_mean():
    scale = Scale(0.25, 0.5)
    assert scale.pixel_mm2 == pytest.approx(0.25 * 0.5 * 1e-6, rel=1e-15)
    assert scale.mean_um == 0.375
    assert Scale(0.5, 0.5).pixel_mm2 == 4 * Scale(0.25, 0.25).pixel_mm2


@QUICK
@given(um=st.floats(0, 1e5), um_per_px=st.floats(0.1, 1.1))
def test_a_distance_falls_on_the_nearest_level_0_pixel(um, um_per_px):
    px = l0_from_um(um, um_per_px)
    assert isinstance(px, int)
    assert abs(px - um / um_per_px) <= 0.5


def test_twice_the_um_per_px_gives_half_the_pixels():
    assert [l0_from_um(3000, um) for um in (0.125, 0.25, 0.5, 1.0)] == [24000, 12000, 6000, 3000]
