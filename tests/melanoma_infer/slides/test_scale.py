"""The scale of a slide is known, or the slide is refused."""

import math
from dataclasses import replace

import pytest
import tifffile
from slides_for_tests import facts_of, solid, write_image, write_svs

from melanoma_infer.errors import ScaleUnknownError
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import StatedScale
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.ome_xml import ome_scale
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


def ome_tiff(path, x, y, *, tag_um=None, units=None):
    tags = {} if tag_um is None else {"resolution": (1e4 / tag_um, 1e4 / tag_um), "resolutionunit": "CENTIMETER"}
    about = {"axes": "YXS", "PhysicalSizeX": x, "PhysicalSizeY": y}
    if units is not None:
        about |= {"PhysicalSizeXUnit": units, "PhysicalSizeYUnit": units}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(solid(300, 280), tile=(256, 256), photometric="rgb", metadata=about, **tags)
    return path


@pytest.mark.parametrize(
    ("x", "y", "units"), [(0.25, 0.252, None), (250, 252, "nm"), (0.00025, 0.000252, "mm"), (2500, 2520, "Å")]
)
def test_a_scale_in_ome_xml_alone_is_taken_in_its_unit(tmp_path, x, y, units):
    with open_slide(ome_tiff(tmp_path / "s.ome.tif", x, y, units=units)) as slide:
        known = known_scale(slide.facts, None)
    assert (known.scale.x_um, known.scale.y_um) == pytest.approx((0.25, 0.252))
    assert known.source == "slide"
    assert known.contradiction is None


@pytest.mark.parametrize("units", ["pixel", "reference frame"])
def test_a_size_in_ome_xml_that_is_no_length_is_no_scale(tmp_path, units):
    with (
        open_slide(ome_tiff(tmp_path / "s.ome.tif", 0.25, 0.25, units=units)) as slide,
        pytest.raises(ScaleUnknownError),
    ):
        known_scale(slide.facts, None)


def test_a_document_type_in_the_description_is_not_parsed():
    text = '<!DOCTYPE x><OME><Pixels SizeX="3" SizeY="2" PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></OME>'
    assert ome_scale(text, SizePx(3, 2)) is None
    assert ome_scale(text.removeprefix("<!DOCTYPE x>"), SizePx(3, 2)) == Scale(0.5, 0.5)


def test_ome_xml_of_another_image_says_nothing_of_this_one():
    first = '<Pixels SizeX="30" SizeY="20" PhysicalSizeX="8" PhysicalSizeY="8"/>'
    text = f'<OME>{first}<Pixels SizeX="3" SizeY="2" PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></OME>'
    assert ome_scale(text, SizePx(3, 2)) == Scale(0.5, 0.5)
    assert ome_scale(text, SizePx(4, 2)) is None


@pytest.mark.parametrize(("ome", "tag", "contradict"), [(0.25, 0.5, True), (0.5, 0.25, True), (0.3, 0.5, False)])
def test_ome_xml_and_the_tiff_tag_contradict_each_other_from_a_factor_of_1_8_on(tmp_path, ome, tag, contradict):
    with open_slide(ome_tiff(tmp_path / "s.ome.tif", ome, ome, tag_um=tag)) as slide:
        known = known_scale(slide.facts, None)
    assert known.scale.x_um == pytest.approx(tag)
    if contradict:
        assert known.contradiction == f"TIFF tag {tag:g} µm/px; OME-XML {ome:g} µm/px"
    else:
        assert known.contradiction is None


@pytest.mark.parametrize(
    ("power", "mpp", "contradict"),
    [("40", "0.998", True), ("20", "0.25", True), ("40", "0.5", True), ("20", "0.499", False), ("20", "0.4", False)],
)
def test_a_magnification_that_contradicts_the_scale_is_told_with_both_values(tmp_path, power, mpp, contradict):
    with open_slide(write_svs(tmp_path / "s.svs", solid(300, 280), mpp=mpp, power=power)) as slide:
        contradiction = known_scale(slide.facts, None).contradiction
        assert known_scale(slide.facts, (0.5, 0.5)).contradiction is None  # settled by hand
    assert (contradiction is not None) == contradict
    if contradict:
        assert f" {mpp} µm/px" in contradiction
        assert f"{power}×" in contradiction


def test_the_objective_of_a_scanner_with_a_fine_camera_contradicts_nothing():
    facts = replace(facts_of([(100, 80)], scale=Scale(0.2325, 0.2325)), vendor="mirax", objective_power=20.0)
    facts = replace(facts, stated_scales=(StatedScale("the scanner's properties", Scale(0.2325, 0.2325)),))
    assert known_scale(facts, None).contradiction is None
    assert known_scale(replace(facts, vendor="aperio"), None).contradiction is not None


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
