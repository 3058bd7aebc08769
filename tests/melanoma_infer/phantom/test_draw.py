"""Blocks of a scene, and what they show."""

import numpy as np
import pytest

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import background_of, draw
from melanoma_infer.phantom.labels import Label, draw_labels
from melanoma_infer.phantom.options import Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.styles import STYLES

SIZE_UM = (3000.0, 2400.0)
CASES = frozenset({"ulcerated", "infiltrate", "melanophages", "on-nevus", "fold", "ink"})
WITH = make_scene(3, "melanoma", SIZE_UM, Options(style="C", cases=CASES, angle_deg=25))
WITHOUT = WITH.without_lesion()


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
def test_this_also_holds_at_other_scales_for_a_blurred_scene(um_per_px):
    scene = make_scene(3, "melanoma", SIZE_UM, Options(style="D", cases=frozenset({"blur"}), angle_deg=-70))
    large = RectPx(int(1300 / um_per_px), int(900 / um_per_px), 150, 130)
    small = RectPx(large.x + 41, large.y + 29, 50, 37)
    np.testing.assert_array_equal(draw(scene, small, um_per_px), draw(scene, large, um_per_px)[29:66, 41:91])


def test_every_label_occurs():
    cases = CASES | {"thick-horn"}
    scene = make_scene(3, "melanoma", (9000.0, 6000.0), Options(cases=cases))
    present = {Label(value) for value in np.unique(draw_labels(scene, RectPx(0, 0, 2250, 1500), 4.0))}
    assert present == set(Label) - {Label.BACKGROUND_BELOW}


def test_with_and_without_a_lesion_differ_at_the_lesion_and_the_pixels_beside_it_only(at_2_um):
    labels = draw_labels(WITH, whole(2.0), 2.0)
    bare = draw_labels(WITHOUT, whole(2.0), 2.0)
    differ = (at_2_um != draw(WITHOUT, whole(2.0), 2.0)).any(axis=2)
    lesion = labels != bare
    assert 0.01 < lesion.mean() < 0.4
    beside = lesion.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        beside |= np.roll(lesion, step, axis)
    assert not differ[~beside].any()
    assert differ[lesion].mean() > 0.98


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_colours_and_no_labels_and_its_background_is_its_white(style):
    scene = make_scene(3, "melanoma", SIZE_UM, Options(style=style))
    corner = draw(scene, RectPx(0, 0, 40, 40), 0.5).astype(int)
    assert np.abs(corner.reshape(-1, 3).mean(axis=0) - background_of(scene)).max() < 0.6
    assert np.abs(corner - background_of(scene)).max() <= STYLES[style].noise + 1
    other = make_scene(3, "melanoma", SIZE_UM, Options(style="A" if style != "A" else "B"))
    block = RectPx(100, 80, 90, 70)
    np.testing.assert_array_equal(draw_labels(scene, block, 10.0), draw_labels(other, block, 10.0))
    assert np.abs(draw(scene, block, 10.0).astype(int) - draw(other, block, 10.0)).mean() > 1.5


@pytest.mark.parametrize("kind", ["melanoma", "nevus", "none"])
def test_a_coarser_drawing_is_close_to_the_average_of_the_finer_one(kind):
    """Two places a pixel are averaged there, so borders and details differ a little; colours must not."""
    scene, block, factor = make_scene(4, kind, SIZE_UM, Options(style="A")), RectPx(80, 90, 160, 130), 8
    fine = draw(scene, RectPx(*(side * factor for side in vars(block).values())), 6.0 / factor)
    averaged = fine.reshape(block.height, factor, block.width, factor, 3).mean(axis=(1, 3))
    coarse = draw(scene, block, 6.0).astype(float)
    assert np.abs(coarse - averaged).mean() < 10
    assert np.abs(coarse.mean(axis=(0, 1)) - averaged.mean(axis=(0, 1))).max() < 2.5


def test_the_same_seed_gives_the_same_pixels_and_another_seed_gives_others(at_2_um):
    again = make_scene(3, "melanoma", SIZE_UM, WITH.options)
    np.testing.assert_array_equal(draw(again, whole(2.0), 2.0), at_2_um)
    other = make_scene(4, "melanoma", SIZE_UM, WITH.options)
    assert (draw(other, whole(2.0), 2.0) != at_2_um).any(axis=2).mean() > 0.15


def test_nevi_and_melanomas_have_the_same_mean_colour_and_different_patterns():
    """At the model's scale, averaged over 4 × 4 px: what tells them apart is the pattern."""
    colours, spreads = {}, {}
    for kind, label in (("melanoma", Label.MELANOMA), ("nevus", Label.NEVUS)):
        scene = make_scene(11, kind, (9000.0, 9000.0), Options(cases=frozenset({"large", "unpigmented"}), depth_mm=2.0))
        block = RectPx(400, 300, 512, 512)
        pixels = draw(scene, block, 5.859375).reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
        there = (draw_labels(scene, block, 5.859375) == label).reshape(128, 4, 128, 4).all(axis=(1, 3))
        assert there.sum() > 100
        colours[kind], spreads[kind] = pixels[there].mean(axis=0), pixels[there].std(axis=0).mean()
    assert np.abs(colours["melanoma"] - colours["nevus"]).max() < 16
    assert spreads["melanoma"] > 1.3 * spreads["nevus"]
