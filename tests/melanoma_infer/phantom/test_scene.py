"""The section of skin, before it is drawn."""

import numpy as np
import pytest

from melanoma_infer.phantom.scene import borders, layers, make_scene

SIZES = [(9000.0, 6000.0), (1000.0, 1000.0), (3000.0, 1200.0), (30_000.0, 20_000.0)]
SEEDS = range(12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_section_is_surrounded_by_background_and_its_layers_are_in_order(seed, size):
    scene = make_scene(seed, "none", size)
    x = np.linspace(0, size[0], 2000)
    heights = np.array(borders(layers(scene, x)))
    assert heights.min() > 0.02 * size[1]
    assert heights.max() < 0.98 * size[1]
    assert (np.diff(heights, axis=0) >= 0).all()
    outside = (x < scene.skin.left_um) | (x > scene.skin.right_um)
    assert np.ptp(heights[:, outside], axis=0).max() == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_lesion_is_connected_to_the_surface_and_ends_inside_the_section(seed, size):
    scene = make_scene(seed, "melanoma", size)
    first, last = scene.lesion.ends_um
    x = np.linspace(first, last, 3000)[1:-1]
    of = layers(scene, x)
    height = scene.lesion.lower_um(x) - of.epidermis
    reached = np.flatnonzero(height > 0)
    assert len(reached) == reached[-1] - reached[0] + 1
    assert scene.skin.left_um < first < last < scene.skin.right_um
    assert (scene.lesion.lower_um(x) < of.background_below).all()
    assert 0.15 < height.max() / scene.skin.thickness_um < 0.55


def test_each_seed_gives_another_section_and_the_lesion_changes_nothing_else():
    one, two = make_scene(1, "melanoma", SIZES[0]), make_scene(2, "melanoma", SIZES[0])
    x = np.linspace(1000, 8000, 500)
    assert np.abs(layers(one, x).epidermis - layers(two, x).epidermis).max() > 20
    assert one.lesion != two.lesion
    without = make_scene(1, "none", SIZES[0])
    assert without.lesion is None
    assert (without.structures, without.skin) == (one.structures, one.skin)
    np.testing.assert_array_equal(layers(one, x).fat, layers(without, x).fat)
