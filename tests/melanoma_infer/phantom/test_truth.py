"""The truth about phantoms, measured again by the audit on drawings of their labels."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.audit import Measured, Ruler, measure
from melanoma_infer.phantom.labels import Label, draw_labels
from melanoma_infer.phantom.options import CASES, Options
from melanoma_infer.phantom.scene import Scene, make_scene
from melanoma_infer.phantom.truth import SectionTruth, Truth, truth_of

SIZE_UM = (4000.0, 3000.0)


def labels_of(scene: Scene, um: float) -> np.ndarray:
    return draw_labels(scene, RectPx(0, 0, int(scene.size_um[0] / um), int(scene.size_um[1] / um)), um)


def measured(scene: Scene, um: float) -> tuple[Truth, list[Measured]]:
    truth = truth_of(scene, um)
    rulers = [Ruler(section.centre_um, section.normal_from_um, section.bulge) for section in truth.sections]
    return truth, measure(labels_of(scene, um), labels_of(scene.bare(), um), um, rulers)


def assert_agree(true: SectionTruth, found: Measured, um: float) -> None:
    """Areas to 1 %, lengths to a pixel; where the surface is steep, a pixel aside is up to two pixels of depth."""
    assert found.tissue_mm2 == pytest.approx(true.tissue_mm2, rel=0.005, abs=0.002)
    low, high = found.lesion_mm2
    assert 0.985 * low - 0.01 <= true.lesion_mm2 <= 1.015 * high + 0.01
    assert found.ulcer_mm == pytest.approx(true.ulcer_mm, abs=0.01 + 0.003 * um)
    assert (found.breslow_mm is None) == (true.breslow_mm is None)
    if true.breslow_mm is not None:
        assert found.breslow_mm == pytest.approx(true.breslow_mm, abs=2.01 * um / 1000)
        assert found.clark[0] <= true.clark <= found.clark[1]


@pytest.mark.parametrize("seed", range(4))
def test_a_plain_scene_s_thickness_is_that_of_its_pixels_to_one_pixel(seed):
    truth, (found,) = measured(make_scene(seed, "melanoma", SIZE_UM, Options(depth_mm=0.9)), 4.0)
    assert truth.breslow_mm == pytest.approx(0.9, abs=1e-9)
    assert found.breslow_mm == pytest.approx(0.9, abs=0.004)
    assert_agree(truth.sections[0], found, 4.0)
    if abs(found.deepest_um[0] - truth.sections[0].deepest_um[0]) < 50:
        assert found.surface_um == pytest.approx(truth.sections[0].surface_um, abs=30)
        assert found.deepest_um == pytest.approx(truth.sections[0].deepest_um, abs=30)


def random_scene(number: int) -> Scene:
    drawn = random.Random(number)
    options = Options(
        cases=frozenset(case for case in CASES if drawn.random() < 0.25),
        depth_mm=drawn.choice([None, 0.3, 0.5, 1.0]),
        sections=drawn.choice([1, 1, 2]),
        angle_deg=drawn.uniform(-180, 180),
    )
    kind = drawn.choice(["melanoma", "melanoma", "melanoma", "nevus", "none"])
    return make_scene(drawn.randrange(2**32), kind, drawn.choice([(6000.0, 5500.0), (7000.0, 7000.0)]), options)


@pytest.mark.parametrize("number", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 120))])
def test_the_audit_finds_the_truth_of_any_mixture_of_hard_cases(number):
    truth, found = measured(random_scene(number), 4.0)
    for section, measures in zip(truth.sections, found, strict=True):
        assert_agree(section, measures, 4.0)


def test_the_audit_sees_a_cell_that_is_deeper_than_the_truth_says():
    """The audit would notice: cells painted 80 µm below the deepest are measured 80 µm deeper."""
    scene = make_scene(1, "melanoma", SIZE_UM, Options(depth_mm=0.9))
    truth, um = truth_of(scene, 4.0), 4.0
    labels, section = labels_of(scene, um), truth.sections[0]
    x, y = (int(at / um) for at in section.deepest_um)
    labels[y : y + 20, x - 2 : x + 3] = Label.MELANOMA
    ruler = Ruler(section.centre_um, section.normal_from_um, section.bulge)
    (found,) = measure(labels, labels_of(scene.bare(), um), um, [ruler])
    assert found.breslow_mm == pytest.approx(0.98, abs=0.008)


def test_the_outlines_enclose_the_lesion_s_pixels():
    scene = make_scene(2, "melanoma", SIZE_UM, Options(depth_mm=1.0))
    labels = labels_of(scene, 4.0)
    lesion = np.isin(labels, (Label.MELANOMA, Label.MELANOMA_IN_SITU))
    mask = Image.new("1", labels.shape[::-1])
    for outline in truth_of(scene, 4.0).sections[0].outlines_l0:
        ImageDraw.Draw(mask).polygon(outline, fill=1)
    inside = np.asarray(mask)
    assert (inside & lesion).sum() / lesion.sum() > 0.995
    assert inside.sum() * 16e-6 == pytest.approx(truth_of(scene, 4.0).area_mm2, rel=0.02)


def test_the_scale_changes_pixels_but_no_millimetres():
    scene = make_scene(1, "melanoma", SIZE_UM)
    fine, coarse = truth_of(scene, 0.25), truth_of(scene, 1.0)
    assert (fine.area_mm2, fine.breslow_mm, fine.tissue_mm2) == (coarse.area_mm2, coarse.breslow_mm, coarse.tissue_mm2)
    first, second = (np.array(truth.sections[0].outlines_l0[0]) for truth in (fine, coarse))
    np.testing.assert_allclose(first, second * 4, atol=0.03)
    assert (fine.size_l0, coarse.size_l0) == ((16_000, 12_000), (4000, 3000))


def test_without_a_lesion_there_is_nothing_to_measure_and_the_tissue_is_the_same():
    without = truth_of(make_scene(1, "none", SIZE_UM), 2.0)
    assert (without.lesion, without.area_mm2, without.breslow_mm, without.clark) == ("none", 0.0, None, None)
    assert without.sections[0].outlines_um == ()
    assert without.tissue_mm2 == truth_of(make_scene(1, "melanoma", SIZE_UM), 2.0).tissue_mm2
    nevus = truth_of(make_scene(1, "nevus", SIZE_UM), 2.0)
    assert (nevus.breslow_mm, nevus.clark) == (None, None)
    assert nevus.area_mm2 > 0.05


def test_the_worst_of_several_sections_has_the_thickness_that_was_asked_for():
    truth = truth_of(make_scene(4, "melanoma", (9000.0, 7000.0), Options(depth_mm=0.8, sections=3)), 1.0)
    depths = [section.breslow_mm for section in truth.sections]
    assert truth.breslow_mm == max(depths) == pytest.approx(0.8)
    assert depths[truth.worst_section] == max(depths)
    assert min(depths) < 0.79


def test_a_depth_of_clark_s_levels_goes_with_the_layers():
    levels = [
        truth_of(make_scene(6, "melanoma", (12_000.0, 12_000.0), Options(depth_mm=mm)), 1.0).clark
        for mm in (0.2, 1.0, 3.2)
    ]
    assert levels[0] in (2, 3)
    assert levels[1:] == [4, 5]
