"""What was not scanned is dark fill and not tissue; pigment stays tissue, and fluorescence is told from brightfield."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
from slides_for_tests import BACKGROUND, EOSIN, MELANIN, ArraySlide, reading, solid

from melanoma_infer.geometry import Scale
from melanoma_infer.slides import open_slide
from melanoma_infer.tiles.tissue import find_tissue

UM = 4.0
SIDE = 400
"""A plane of 200 × 200 px of 8 µm, 2.56 mm²."""


def tissue_of(pixels):
    with reading(ArraySlide(pixels)) as slide:
        return find_tissue(slide, Scale(UM, UM))


def mm2(tissue):
    return tissue.mask.sum() * (tissue.px_l0 * UM / 1000) ** 2


def biopsy(fill):
    """A block of stained tissue on its own background, in a canvas of one colour or of given pixels."""
    canvas = np.empty((SIDE, SIDE, 3), np.uint8)
    canvas[:] = fill
    canvas[120:280, 100:300] = BACKGROUND
    canvas[150:250, 140:260] = EOSIN
    return canvas


def noise_up_to(high):
    return np.random.default_rng(3).integers(0, high + 1, (SIDE, SIDE, 3), dtype=np.uint8)


FILLS = {
    "black": (0, 0, 0),
    "near black": (1, 0, 3),
    "dark blue": (2, 6, 40),
    "dark brown": (40, 28, 22),
    "dark green": (10, 30, 12),
    "noise": noise_up_to(5),
}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_dark_fill_round_a_biopsy_is_background(fill):
    tissue, control = tissue_of(biopsy(fill)), tissue_of(biopsy((255, 255, 255)))
    assert tissue.is_brightfield
    assert mm2(tissue) == pytest.approx(mm2(control), rel=0.02)
    assert mm2(control) == pytest.approx(0.192, rel=0.1)
    assert not tissue.ink.any()


def test_a_small_biopsy_in_a_large_black_picture_is_found():
    canvas = np.zeros((1600, 1600, 3), np.uint8)
    canvas[600:760, 600:800] = biopsy(0)[120:280, 100:300]
    tissue = tissue_of(canvas)
    assert tissue.is_brightfield
    assert mm2(tissue) == pytest.approx(0.192, rel=0.1)


def test_a_gap_of_black_inside_the_scan_is_background():
    canvas = solid(SIDE, SIDE)
    canvas[20:380, 20:120] = EOSIN
    filled = canvas.copy()
    filled[100:300, 200:300] = (4, 1, 8)
    assert mm2(tissue_of(filled)) == pytest.approx(mm2(tissue_of(canvas)), rel=0.01)


def test_flat_pigment_within_tissue_stays_tissue():
    canvas = solid(2 * SIDE, 2 * SIDE)
    canvas[50:750, 50:750] = EOSIN
    plain = tissue_of(canvas)
    canvas[100:600, 100:600] = (25, 18, 15)  # 4 mm²
    assert mm2(tissue_of(canvas)) == pytest.approx(mm2(plain), rel=0.01)


def test_pigment_at_the_edge_of_the_slide_stays_tissue():
    canvas = solid(SIDE, SIDE)
    texture = np.random.default_rng(1).normal(1, 0.35, (SIDE // 8, SIDE // 8, 1)).clip(0.2, 1).repeat(8, 0).repeat(8, 1)
    canvas[:, :160] = (np.array(MELANIN) * 0.8 * texture)[:, :160].astype(np.uint8)
    assert mm2(tissue_of(canvas)) == pytest.approx(160 * SIDE * UM**2 / 1e6, rel=0.03)


def test_real_tissue_darkened_like_pigment_stays_tissue(real_slides):
    with openslide.OpenSlide(real_slides / "cmu-1-small-region.svs") as slide:
        pixels = np.asarray(slide.read_region((800, 1900), 0, (1024, 1024)))[..., :3]
    whole = solid(1536, 1536)
    whole[:1024, :1024] = pixels
    dark = whole.copy()
    dark[:1024, :1024] = np.minimum(dark[:1024, :1024], (pixels * 0.2).astype(np.uint8))
    found = []
    for each in (whole, dark):
        with reading(ArraySlide(each)) as slide:
            found.append(find_tissue(slide, Scale(0.5, 0.5)).mask)
    assert (found[1] & found[0]).sum() > 0.97 * found[0].sum()


def test_fluorescence_stays_refused(real_slides):
    with open_slide(real_slides / "test3-dapi-2.ndpi") as slide:
        tissue = find_tissue(slide, slide.facts.scale)
    assert not tissue.is_brightfield
    assert not tissue.mask.any()


def test_bright_cells_on_black_are_fluorescence_and_no_biopsy():
    rng = np.random.default_rng(2)
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    glow = np.zeros((SIDE, SIDE))
    for y, x in rng.uniform(60, SIDE - 60, (40, 2)):
        glow += 220 * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 150)
    canvas[...] = glow.clip(0, 255)[..., None] * (0.3, 1.0, 0.3)
    assert not tissue_of(canvas).is_brightfield


def test_a_wholly_black_slide_is_too_dark():
    assert not tissue_of(np.zeros((SIDE, SIDE, 3), np.uint8)).is_brightfield
