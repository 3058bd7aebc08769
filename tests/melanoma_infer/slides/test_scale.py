"""The scale of a slide is known, or the slide is refused."""

import math

import pytest
from slides_for_tests import facts_of, solid, write_image, write_svs

from melanoma_infer.errors import ScaleUnknownError
from melanoma_infer.geometry import Scale
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.scale import KnownScale, known_scale


def known(x_um=None, y_um=None, override=None):
    scale = None if x_um is None else Scale(x_um, y_um)
    return known_scale(facts_of([(100, 80)], scale=scale), override)


@pytest.mark.parametrize(("x_um", "y_um"), [(0.1, 0.1), (0.2527, 0.2527), (0.5, 0.509), (1.1, 1.1)])
def test_the_slides_own_scale_is_taken_x_and_y_apart(x_um, y_um):
    assert known(x_um, y_um) == KnownScale(Scale(x_um, y_um), "slide")


def test_a_missing_scale_is_refused_with_what_to_type():
    with pytest.raises(ScaleUnknownError, match=r"does not say its scale.*--mpp") as caught:
        known()
    assert caught.value.exit_code == 12


@pytest.mark.parametrize("um", [0.09, 1.2, 27.2, 0.0, -0.25, 352.78, math.nan, math.inf])
def test_a_scale_outside_a_scanners_range_is_refused(um):
    with pytest.raises(ScaleUnknownError, match=r"cannot be right.*outside 0.1–1.1.*--mpp"):
        known(um, um)


@pytest.mark.parametrize(("x_um", "y_um"), [(0.25, 0.2551), (0.2551, 0.25), (0.25, 0.5)])
def test_x_and_y_more_than_2_percent_apart_are_refused(x_um, y_um):
    with pytest.raises(ScaleUnknownError, match=r"2% apart.*--mpp"):
        known(x_um, y_um)


@pytest.mark.parametrize("own", [None, 0.5, 352.78])
def test_a_scale_given_by_hand_wins_and_is_recorded_as_such(own):
    assert known(own, own, override=(0.25, 0.2525)) == KnownScale(Scale(0.25, 0.2525), "override")


@pytest.mark.parametrize("override", [(0.01, 0.01), (25.0, 25.0), (0.25, 0.3), (math.nan, math.nan)])
def test_an_implausible_scale_given_by_hand_is_refused_too(override):
    with pytest.raises(ScaleUnknownError, match="given with --mpp is not a slide's"):
        known(0.5, 0.5, override=override)


def test_a_plain_image_needs_its_scale_given(tmp_path):
    with open_slide(write_image(tmp_path / "image.png", solid(60, 40))) as slide:
        with pytest.raises(ScaleUnknownError):
            known_scale(slide.facts, None)
        assert known_scale(slide.facts, (0.5, 0.5)).source == "override"


def test_a_magnification_alone_is_no_scale(tmp_path):
    with (
        open_slide(write_svs(tmp_path / "s.svs", solid(300, 280), mpp="", power="40")) as slide,
        pytest.raises(ScaleUnknownError),
    ):
        known_scale(slide.facts, None)


def test_a_real_slide_with_the_scale_of_a_screen_is_refused(real_slides):
    with open_slide(real_slides / "boxes.tiff") as slide, pytest.raises(ScaleUnknownError, match="352"):
        known_scale(slide.facts, None)
