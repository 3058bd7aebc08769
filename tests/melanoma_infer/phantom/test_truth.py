"""The truth about a phantom, measured again on a drawing of its labels."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import Label, draw_labels
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.truth import truth_of

SIZE_UM = (6000.0, 4000.0)
UM = 2.0


@pytest.fixture(scope="module", params=[1, 2, 3])
def scene_and_labels(request):
    scene = make_scene(request.param, "melanoma", SIZE_UM)
    return scene, draw_labels(scene, RectPx(0, 0, int(SIZE_UM[0] / UM), int(SIZE_UM[1] / UM)), UM)


def test_area_is_that_of_the_lesion_s_pixels(scene_and_labels):
    scene, labels = scene_and_labels
    counted = (labels == Label.MELANOMA).sum() * UM**2 / 1e6
    assert truth_of(scene, UM).area_mm2 == pytest.approx(counted, rel=0.005)


def test_tissue_is_all_pixels_that_are_not_background(scene_and_labels):
    scene, labels = scene_and_labels
    counted = (labels != Label.BACKGROUND).sum() * UM**2 / 1e6
    assert truth_of(scene, UM).tissue_mm2 == pytest.approx(counted, rel=0.005)


def test_depth_is_that_of_the_deepest_column_of_lesion_pixels_to_one_pixel(scene_and_labels):
    """Columns of the lesion begin at the surface of the living epidermis, so their height is their depth."""
    scene, labels = scene_and_labels
    truth = truth_of(scene, UM)
    heights = (labels == Label.MELANOMA).sum(axis=0)
    assert truth.depth_mm * 1000 == pytest.approx(heights.max() * UM, abs=UM)
    x, y = truth.deepest_um
    column = labels[:, int(x / UM)]
    assert np.flatnonzero(column == Label.MELANOMA).max() == pytest.approx(y / UM, abs=1)
    first = np.flatnonzero(column == Label.MELANOMA).min()
    assert column[first - 1] == Label.HORN


def test_the_outline_encloses_the_lesion_s_pixels_and_no_others(scene_and_labels):
    scene, labels = scene_and_labels
    lesion = labels == Label.MELANOMA
    mask = Image.new("1", labels.shape[::-1])
    ImageDraw.Draw(mask).polygon(truth_of(scene, UM).outline_l0, fill=1)
    drawn = np.asarray(mask)
    assert (drawn & lesion).sum() / (drawn | lesion).sum() > 0.985


def test_the_scale_changes_pixels_but_no_millimetres():
    scene = make_scene(1, "melanoma", SIZE_UM)
    fine, coarse = truth_of(scene, 0.25), truth_of(scene, 1.0)
    assert (fine.area_mm2, fine.depth_mm, fine.tissue_mm2) == (coarse.area_mm2, coarse.depth_mm, coarse.tissue_mm2)
    assert fine.outline_um == coarse.outline_um
    np.testing.assert_allclose(fine.outline_l0, np.array(coarse.outline_l0) * 4, atol=0.03)
    assert (fine.size_l0, coarse.size_l0) == ((24_000, 16_000), (6000, 4000))


def test_without_a_lesion_there_is_nothing_to_measure_and_the_tissue_is_the_same():
    without = truth_of(make_scene(1, "none", SIZE_UM), UM)
    assert (without.lesion, without.area_mm2, without.depth_mm, without.deepest_um) == ("none", 0.0, None, None)
    assert without.outline_um == without.outline_l0 == ()
    assert without.tissue_mm2 == truth_of(make_scene(1, "melanoma", SIZE_UM), UM).tissue_mm2
