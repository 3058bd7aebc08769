"""Augmentation: what is drawn, and where it is afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from training_for_tests import drawn

from melanoma_infer.training.augment import recoloured, turned, varied
from melanoma_infer.training.settings import TrainingSettings

SIDE = 128
PLAIN = TrainingSettings(colour=0, saturation=0, contrast=0, brightness=0)


def with_dots(*places: tuple[float, float]) -> Image.Image:
    """Black discs of 3 px on white, at x and y from the centre."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for left, top in places:
        pixels[np.hypot(x - left, y - top) < 3] = 0
    return Image.fromarray(pixels)


def dark_centres(image: Image.Image | np.ndarray, count: int) -> np.ndarray:
    """The centres of the dark discs, from the centre of the picture."""
    from scipy import ndimage

    dark = 255.0 - np.asarray(image)[..., 0]
    labels, found = ndimage.label(dark > 60)
    assert found == count
    places = np.array(ndimage.center_of_mass(dark, labels, range(1, count + 1)))
    return places[:, ::-1] - (SIDE - 1) / 2


@pytest.mark.parametrize(("angle_deg", "scale"), [(0, 1), (90, 1), (30, 1), (-40, 0.85), (17, 1.2), (0, 0.8)])
def test_a_place_goes_where_the_rotation_and_the_scale_put_it(angle_deg, scale):
    angle = math.radians(angle_deg)
    (found,) = dark_centres(turned(with_dots((20, -5)), angle, scale), 1)
    # Anticlockwise as seen, with y downwards.
    expected = scale * np.array(
        [20 * math.cos(angle) + -5 * math.sin(angle), -20 * math.sin(angle) + -5 * math.cos(angle)]
    )
    assert found == pytest.approx(expected, abs=0.25)


def test_distances_are_multiplied_by_what_the_depth_is_multiplied_by():
    settings = PLAIN.model_copy(update={"free_share": 1.0})
    factors = []
    for seed in range(40):
        pixels, move = varied(with_dots((-12, 0), (12, 0)), np.random.default_rng(seed), settings)
        factor = move.depth_factor
        factors.append(factor)
        if not math.isnan(factor):
            first, second = dark_centres(pixels, 2)
            assert math.dist(first, second) / 24 == pytest.approx(factor, abs=0.03)
    known = [factor for factor in factors if not math.isnan(factor)]
    # The magnified and the far turned no longer show the whole tile: their depth does not count.
    assert 5 < len(known) < 35
    assert max(known) <= 1.1
    assert min(known) >= 1 / 1.2


def test_a_depth_counts_only_while_the_tile_stays_in_the_picture():
    settings = PLAIN.model_copy(update={"free_share": 1.0, "angle_deg": 0.0})
    for seed in range(40):
        factor = varied(with_dots((0, 0)), np.random.default_rng(seed), settings).move.depth_factor
        assert math.isnan(factor) or factor <= 1.1


def test_right_angles_and_mirrors_are_exact_and_all_occur():
    settings = PLAIN.model_copy(update={"free_share": 0.0})
    tile = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    ways = {}
    for quarter in range(4):
        for mirrored in (False, True):
            way = np.rot90(tile[:, ::-1] if mirrored else tile, quarter)
            ways[way.tobytes()] = (quarter, mirrored)
    seen = set()
    for seed in range(80):
        pixels, move = varied(Image.fromarray(tile), np.random.default_rng(seed), settings)
        factor = move.depth_factor
        assert factor == 1.0
        seen.add(ways[pixels.tobytes()])
    assert len(seen) == 8


def test_no_colour_change_changes_no_pixel():
    tile = Image.fromarray(drawn(np.random.default_rng(1), 1.0))
    assert np.array_equal(np.asarray(recoloured(tile, np.random.default_rng(0), PLAIN)), np.asarray(tile))


def test_each_colour_setting_does_what_it_says():
    tile = Image.fromarray(drawn(np.random.default_rng(1), 1.0))
    before = np.asarray(tile).astype(float)

    def after(**changes: float) -> np.ndarray:
        settings = PLAIN.model_copy(update=changes)
        return np.asarray(recoloured(tile, np.random.default_rng(4), settings)).astype(float)

    brighter = after(brightness=0.05)
    shift = (brighter - before)[before < 200]  # far from 255, where values are clipped
    assert np.ptp(shift) <= 1
    assert 0 < abs(shift.mean()) <= 0.05 * 255
    inside = (before > 60).all(2) & (before < 235).all(2)
    ratio = after(colour=0.1)[inside] / before[inside]
    gains = ratio.mean(0)
    assert ((gains > 0.9) & (gains < 1.1)).all()
    assert np.ptp(gains) > 0.005
    assert ratio.std(0).max() < 0.01
    spread = after(contrast=0.2)[inside].std() / before[inside].std()
    assert 0.8 <= spread <= 1.2
    assert abs(spread - 1) > 0.01
    grey = before @ [0.299, 0.587, 0.114]
    more = after(saturation=0.3)
    away = (more - grey[..., None])[inside].std() / (before - grey[..., None])[inside].std()
    assert 0.7 <= away <= 1.3
    assert abs(away - 1) > 0.01
    assert (more @ [0.299, 0.587, 0.114] - grey)[inside] == pytest.approx(0, abs=1)


def test_the_same_generator_gives_the_same_tile():
    tile = Image.fromarray(drawn(np.random.default_rng(1), 1.0))
    first, again, other = (varied(tile, np.random.default_rng(seed), TrainingSettings()).pixels for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
