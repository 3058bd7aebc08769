"""Blocks of a scene, and what they show."""

import numpy as np
import pytest

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import BACKGROUND_RGB, RAMPS, Label, draw, draw_labels
from melanoma_infer.phantom.scene import make_scene

SIZE_UM = (3000.0, 2400.0)
WITH, WITHOUT = make_scene(3, "melanoma", SIZE_UM), make_scene(3, "none", SIZE_UM)


def whole(um_per_px: float) -> RectPx:
    return RectPx(0, 0, int(SIZE_UM[0] / um_per_px), int(SIZE_UM[1] / um_per_px))


@pytest.fixture(scope="module")
def at_2_um() -> np.ndarray:
    return draw(WITH, whole(2.0), 2.0)


@pytest.mark.parametrize(
    "block",
    [
        RectPx(0, 0, 64, 64),
        RectPx(700, 300, 256, 256),
        RectPx(611, 257, 1, 1),
        RectPx(333, 211, 17, 300),
        RectPx(5, 600, 1490, 3),
    ],
)
def test_a_block_drawn_alone_equals_the_same_block_of_the_whole(at_2_um, block):
    part = at_2_um[block.y : block.bottom, block.x : block.right]
    np.testing.assert_array_equal(draw(WITH, block, 2.0), part)


@pytest.mark.parametrize("um_per_px", [0.25, 0.5, 7.0])
def test_this_also_holds_at_other_scales(um_per_px):
    large = RectPx(int(1300 / um_per_px), int(600 / um_per_px), 150, 130)
    small = RectPx(large.x + 41, large.y + 29, 50, 37)
    np.testing.assert_array_equal(draw(WITH, small, um_per_px), draw(WITH, large, um_per_px)[29:66, 41:91])


def test_every_label_occurs():
    scene = make_scene(3, "melanoma", (9000.0, 6000.0))
    labels = draw_labels(scene, RectPx(0, 0, 2250, 1500), 4.0)
    present = {Label(value) for value in np.unique(labels)}
    assert present == set(Label) - {Label.BACKGROUND_BELOW}


def test_colours_are_those_of_the_label_s_ramp(at_2_um):
    labels = draw_labels(WITH, whole(2.0), 2.0)
    for label, ramp in RAMPS.items():
        mine = at_2_um[labels == label]
        if len(mine):
            assert (mine.min(axis=0) >= np.min(ramp, axis=0)).all(), label
            assert (mine.max(axis=0) <= np.max(ramp, axis=0)).all(), label
    assert (at_2_um[labels == Label.BACKGROUND] == BACKGROUND_RGB).all()
    assert np.ptp(at_2_um[labels == Label.RETICULAR_DERMIS], axis=0).min() > 30


def test_with_and_without_a_lesion_differ_at_the_lesion_only(at_2_um):
    labels = draw_labels(WITH, whole(2.0), 2.0)
    differ = (at_2_um != draw(WITHOUT, whole(2.0), 2.0)).any(axis=2)
    lesion = labels == Label.MELANOMA
    assert lesion.any()
    assert not differ[~lesion].any()
    assert differ[lesion].mean() > 0.99


def test_the_lesion_is_darker_than_any_other_tissue(at_2_um):
    labels = draw_labels(WITH, whole(2.0), 2.0)
    grey = {label: at_2_um[labels == label].mean() for label in Label if (labels == label).any()}
    assert grey.pop(Label.MELANOMA) < 100
    assert min(grey.values()) > 120


@pytest.mark.parametrize("factor", [4, 16])
@pytest.mark.parametrize("scene", [WITH, WITHOUT], ids=["melanoma", "none"])
def test_a_coarser_drawing_is_close_to_the_average_of_the_finer_one(scene, factor):
    """A label is that of the centre of a pixel, so borders are not averaged."""
    block = RectPx(100, 50, 130, 130)
    fine = draw(scene, RectPx(*(side * factor for side in vars(block).values())), 8.0 / factor)
    averaged = fine.reshape(block.height, factor, block.width, factor, 3).mean(axis=(1, 3))
    coarse = draw(scene, block, 8.0).astype(float)
    assert np.abs(coarse - averaged).mean() < 5
    assert np.abs(coarse.mean(axis=(0, 1)) - averaged.mean(axis=(0, 1))).max() < 1.5


def test_the_same_seed_gives_the_same_pixels_and_another_seed_gives_others(at_2_um):
    again = make_scene(3, "melanoma", SIZE_UM)
    np.testing.assert_array_equal(draw(again, whole(2.0), 2.0), at_2_um)
    other = make_scene(4, "melanoma", SIZE_UM)
    assert (draw(other, whole(2.0), 2.0) != at_2_um).any(axis=2).mean() > 0.2
