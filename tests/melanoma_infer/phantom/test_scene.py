"""Sections of skin, before they are drawn."""

from dataclasses import fields

import numpy as np
import pytest

from melanoma_infer.errors import UsageError
from melanoma_infer.phantom.frame import Frame, direction
from melanoma_infer.phantom.labels import bounds_um
from melanoma_infer.phantom.options import CASES, Options
from melanoma_infer.phantom.scene import make_scene

SIZES = [(9000.0, 6000.0), (1000.0, 1000.0), (3000.0, 1200.0), (30_000.0, 20_000.0)]


def borders(layers) -> np.ndarray:
    return np.array([getattr(layers, field.name) for field in fields(layers) if field.name not in ("s_um", "ulcer")])


@pytest.mark.parametrize("degrees", [0.0, 12.5, 90, -37, 180, 269.9, -360, 45])
def test_a_direction_has_the_cosine_and_sine_of_its_angle(degrees):
    assert direction(degrees) == pytest.approx((np.cos(np.radians(degrees)), np.sin(np.radians(degrees))), abs=1e-12)


@pytest.mark.parametrize("bulge", [1, -1])
def test_strip_coordinates_lead_back_to_the_place_and_depth_is_the_distance_from_the_arc(bulge):
    frame = Frame(4000.0, 2500.0, *direction(33), 7000.0, 9000.0, bulge)
    x, y = np.meshgrid(np.linspace(2500, 5500, 9), np.linspace(1500, 4000, 7))
    s, d = frame.strip(x, y)
    back = frame.slide(s, d)
    np.testing.assert_allclose(back, (x, y), atol=1e-6)
    centre = frame.centre_um
    np.testing.assert_allclose(d, bulge * (9000 - np.hypot(x - centre[0], y - centre[1])), atol=1e-6)
    # A step of 1 µm of s at the surface is `stretch` µm on the slide.
    here, there = (np.array(frame.slide(np.array([s]), np.zeros(1))).ravel() for s in (1200.0, 1201.0))
    assert np.hypot(*(there - here)) == pytest.approx(float(frame.stretch(np.array([1200.5]))[0]), rel=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [
    Options(), Options(sections=3, angle_deg=70), Options(cases=frozenset({"curved", "polypoid"}), angle_deg=-130),
    Options(cases=frozenset({"papillomatous", "thick-horn", "ulcerated"}), sections=2),
])  # fmt: skip
def test_sections_are_on_the_slide_and_their_layers_are_in_order(size, options):
    for seed in range(4):
        scene = make_scene(seed, "melanoma", size, options)
        assert len(scene.sections) == options.sections
        for section in scene.sections:
            assert (np.diff(borders(section.layers), axis=0) >= 0).all()
            left, top, right, bottom = bounds_um(section)
            assert min(left, top) > -60
            assert max(right - size[0], bottom - size[1]) < 60


def test_the_same_seed_gives_the_same_skin_whatever_the_lesion_is():
    one, other = (make_scene(1, "melanoma", SIZES[0], Options(depth_mm=depth)) for depth in (0.5, 2.0))
    for scene in (other, make_scene(1, "nevus", SIZES[0]), make_scene(1, "none", SIZES[0]), one.without_lesion()):
        assert scene.sections[0].structures == one.sections[0].structures
        assert scene.sections[0].frame == one.sections[0].frame
        np.testing.assert_array_equal(borders(scene.sections[0].layers), borders(one.sections[0].layers))
    another = make_scene(2, "melanoma", SIZES[0]).sections[0].layers
    assert np.abs(another.reference[1000:7000] - one.sections[0].layers.reference[1000:7000]).max() > 20


def test_an_ulcer_changes_the_skin_where_it_is_and_nowhere_else():
    with_ulcer, without = (
        make_scene(3, "melanoma", SIZES[0], Options(cases=frozenset(cases))).sections[0].layers
        for cases in ({"ulcerated"}, ())
    )
    ulcer = with_ulcer.ulcer
    assert 400 < ulcer.sum() < 1500
    np.testing.assert_array_equal(borders(with_ulcer)[:, ~ulcer], borders(without)[:, ~ulcer])
    assert (with_ulcer.reference[ulcer] >= without.junction[ulcer]).all()
    assert (with_ulcer.junction[ulcer] == with_ulcer.reference[ulcer]).all()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"style": "G"}, "A, B, C, D, E, F"), ({"sections": 5}, "1 to 4"), ({"sections": 0}, "1 to 4"),
        ({"depth_mm": 0.1}, "0.2 to 8 mm"), ({"depth_mm": 9.0}, "0.2 to 8 mm"), ({"angle_deg": 400.0}, "-360 to 360"),
        ({"cases": frozenset({"wart"})}, "thick-horn"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_drawn_are_refused_with_what_can(options, why):
    with pytest.raises(UsageError, match=why):
        Options(**options)


def test_every_hard_case_changes_the_scene_or_its_picture():
    from melanoma_infer.geometry import RectPx
    from melanoma_infer.phantom.draw import draw

    plain = draw(make_scene(5, "melanoma", (8000.0, 6000.0)), RectPx(0, 0, 400, 300), 20.0)
    for case in CASES:
        scene = make_scene(5, "melanoma", (8000.0, 6000.0), Options(cases=frozenset({case})))
        if case == "blur":
            continue  # It blurs by less than a pixel at this scale.
        assert (draw(scene, RectPx(0, 0, 400, 300), 20.0) != plain).any(), case
