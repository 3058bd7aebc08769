"""Regions end where the tissue ends: none is larger than the tissue in it, whatever the mask looks like."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from bundles_for_tests import colour_rule_card
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import Tissue
from melanoma_infer.result import Region
from melanoma_infer.scoring.regions import StitchedMaps, find_regions

MPP = 0.5
CARD = colour_rule_card(region_threshold=0.5)
MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
HOT = arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 5)))


def regions_of(
    hot: np.ndarray, mask: np.ndarray, *, cell_l0: float, px_l0: float, size: SizePx, evidence: float = 0.9
) -> list[Region]:
    nothing = np.zeros_like(mask)
    tissue = Tissue(mask, nothing, nothing, px_l0, None, 240.0, True, "found")
    lesion = np.where(hot, evidence, 0.1)
    maps = StitchedMaps(lesion, lesion / 4, (cell_l0, cell_l0), "cam")
    return find_regions(maps, CARD, size_l0=size, scale=Scale(MPP, MPP), tissue=tissue)


def in_pixels(plane: np.ndarray, side: int, size: SizePx) -> np.ndarray:
    """A plane of cells in level-0 pixels; false beyond its edge."""
    picture = np.zeros((size.height, size.width), bool)
    large = np.kron(plane, np.ones((side, side), bool))[: size.height, : size.width]
    picture[: large.shape[0], : large.shape[1]] = large
    return picture


def filled(region: Region, size: SizePx) -> np.ndarray:
    """The level-0 pixels inside a region, even-odd: every vertical side flips what is right of it."""
    inside = np.zeros((size.height, size.width), bool)
    for ring in (region.outline, *region.holes):
        assert ring[0] == ring[-1]
        for (x0, y0), (x1, y1) in itertools.pairwise(ring):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                inside[int(min(y0, y1)) : int(max(y0, y1)), int(x0) :] ^= True
    return inside


@settings(deadline=None, max_examples=200, derandomize=True)
@given(HOT, MASKS, st.integers(2, 12), st.integers(1, 6), st.integers(1, 40), st.integers(1, 40))
def test_regions_are_the_evidence_on_tissue_and_nothing_else(hot, mask, cell, px, width, height):
    """Pixel by pixel against the two planes, enlarged; crumbs of less than a tenth of a cell are left over."""
    size = SizePx(width, height)
    evidence, tissue = in_pixels(hot, cell, size), in_pixels(mask, px, size)
    wanted, found = evidence & tissue, np.zeros((height, width), bool)
    for region in regions_of(hot, mask, cell_l0=cell, px_l0=px, size=size):
        inside = filled(region, size)
        assert not (inside & (found | ~wanted)).any()
        assert ndimage.label(inside)[1] == 1
        assert region.area_mm2 == pytest.approx(inside.sum() * MPP**2 / 1e6)
        found |= inside
    crumbs, _ = ndimage.label(wanted & ~found)
    assert np.bincount(crumbs.ravel())[1:].max(initial=0) < 0.1 * cell**2
    areas, count = ndimage.label(hot)
    for area in range(1, count + 1):  # what has tissue has a region
        there = in_pixels(areas == area, cell, size)
        assert (there & found).any() == (there & tissue).any()


@settings(deadline=None, max_examples=200, derandomize=True)
@given(HOT, MASKS, st.floats(2, 12), st.floats(1, 6), st.integers(1, 40), st.integers(1, 40))
def test_regions_together_are_never_larger_than_the_tissue(hot, mask, cell, px, width, height):
    """Also where edges are at fractions of pixels."""
    regions = regions_of(hot, mask, cell_l0=cell, px_l0=px, size=SizePx(width, height))
    assert sum(region.area_mm2 for region in regions) <= mask.sum() * px**2 * MPP**2 / 1e6 * (1 + 1e-12)
    for region in regions:
        x, y = np.array(region.outline).T
        assert 0 <= x.min() < x.max() <= width
        assert 0 <= y.min() < y.max() <= height


def test_a_gap_in_the_tissue_parts_a_region():
    mask = np.ones((20, 20), bool)
    mask[:, 9:11] = False
    regions = regions_of(np.ones((2, 2), bool), mask, cell_l0=100, px_l0=10, size=SizePx(200, 200))
    assert [region.outline for region in regions] == [
        [[0, 0], [90, 0], [90, 200], [0, 200], [0, 0]],
        [[110, 0], [200, 0], [200, 200], [110, 200], [110, 0]],
    ]
    assert [region.tissue_section for region in regions] == [1, 2]


def test_a_gap_inside_a_region_is_a_hole():
    mask = np.ones((20, 20), bool)
    mask[4:6, 5:9] = False
    (region,) = regions_of(np.ones((2, 2), bool), mask, cell_l0=100, px_l0=10, size=SizePx(200, 200))
    assert region.holes == [[[50, 40], [50, 60], [90, 60], [90, 40], [50, 40]]]
    assert region.area_mm2 == pytest.approx((200 * 200 - 20 * 40) * MPP**2 / 1e6)


def test_evidence_over_background_is_no_region():
    mask = np.zeros((20, 20), bool)
    assert regions_of(np.ones((2, 2), bool), mask, cell_l0=100, px_l0=10, size=SizePx(200, 200)) == []
    mask[:, :10] = True
    hot = np.array([[False, True], [False, True]])
    assert regions_of(hot, mask, cell_l0=100, px_l0=10, size=SizePx(200, 200)) == []


def test_crumbs_are_dropped_unless_nothing_else_is_there():
    """Parts of one cell of 100 × 100 px; a tenth of it is 1000 px."""

    def corners_of(*parts: tuple[slice, slice]) -> list[list[float]]:
        mask = np.zeros((10, 10), bool)
        for part in parts:
            mask[part] = True
        regions = regions_of(np.ones((1, 1), bool), mask, cell_l0=100, px_l0=10, size=SizePx(100, 100))
        return [region.outline[0] for region in regions]

    px_400, px_900, px_1600 = np.s_[0:2, 0:2], np.s_[0:3, 4:7], np.s_[5:9, 5:9]
    assert corners_of(px_400) == [[0, 0]]
    assert corners_of(px_400, px_900) == [[40, 0]]
    assert corners_of(px_400, px_900, px_1600) == [[50, 50]]
    assert corners_of(px_400, np.s_[0:4, 4:7], px_1600) == [[50, 50], [40, 0]]


def test_evidence_counts_by_the_tissue_that_shows_it():
    """One cell of 0.9 with all its tissue, one of 0.5 with a quarter: 4 to 1."""
    mask = np.zeros((10, 20), bool)
    mask[:, :10] = mask[:5, 10:15] = True
    lesion = np.array([[0.9, 0.5]])
    nothing = np.zeros_like(mask)
    (region,) = find_regions(
        StitchedMaps(lesion, np.array([[0.9, 0.0]]), (100.0, 100.0), "cam"),
        CARD,
        size_l0=SizePx(200, 100),
        scale=Scale(MPP, MPP),
        tissue=Tissue(mask, nothing, nothing, 10.0, None, 240.0, True, "found"),
    )
    assert region.score == pytest.approx((4 * 0.9 + 0.5) / 5)
    assert region.malignant_share == pytest.approx(3.6 / 4.1)
