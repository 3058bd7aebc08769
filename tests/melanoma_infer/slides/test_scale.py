"""The scale of a slide is known, or the slide is refused."""

import math
import struct
from dataclasses import replace

import pytest
import tifffile
from PIL import Image
from slides_for_tests import facts_of, solid, write_image, write_svs

from melanoma_infer.errors import ScaleUnknownError, SlideFormatError
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import StatedScale
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.image_description import ome_scale
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


def scale_of(path):
    with open_slide(path) as slide:
        known = known_scale(slide.facts, None)
    return known.scale.x_um, known.scale.y_um, slide.facts.stated_scales[0].source


LAYOUTS = {"tiles": {"tile": (256, 256)}, "strips": {}, "rows": {"rowsperstrip": 1}}


def tagged(path, *, x=(20000, 1), y=(20000, 1), code=5, unit=3, **options):
    """A TIFF whose resolution tags have these values, of this type; a unit of None takes the tag away."""
    order = options.get("byteorder", "<")
    layout = {"resolution": (2, 3), "resolutionunit": "CENTIMETER", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, solid(300, 280), **layout, **options)
    with tifffile.TiffFile(path) as tiff:
        found = {code: tiff.pages[0].tags[code] for code in (282, 283, 296)}
    content = bytearray(path.read_bytes())
    for number, value in ((282, x), (283, y)):
        struct.pack_into(f"{order}H", content, found[number].offset + 2, code)
        struct.pack_into(f"{order}{'ii' if code == 10 else 'II'}", content, found[number].valueoffset, *value)
    struct.pack_into(f"{order}H", content, found[296].valueoffset, unit or 3)
    if unit is None:
        struct.pack_into(f"{order}H", content, found[296].offset, 60296)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])
def test_the_tags_of_a_tiff_say_its_scale_in_every_layout_and_byte_order(tmp_path, layout, order, big):
    path = tagged(tmp_path / "s.tif", y=(19900, 1), byteorder=order, bigtiff=big, **LAYOUTS[layout])
    if (order, big) == (">", True) and layout != "tiles":  # neither OpenSlide nor Pillow opens it
        with pytest.raises(SlideFormatError, match="Convert it"):
            scale_of(path)
        return
    assert scale_of(path) == (0.5, pytest.approx(1e4 / 19900), "TIFF tag")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_inch_is_the_unit_where_none_is_named(tmp_path, layout):
    for unit in (2, None):
        path = tagged(tmp_path / "s.tif", x=(50800, 1), y=(50800, 1), unit=unit, **LAYOUTS[layout])
        assert scale_of(path)[:2] == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"x": (72, 1), "y": (72, 1), "unit": 2}, "352.778 × 352.778 µm/px is outside"),
        ({"x": (600, 1), "y": (600, 1), "unit": 2}, "42.3333 × 42.3333 µm/px is outside"),
        ({"x": (2**32 - 1, 1), "y": (2**32 - 1, 1)}, "is outside"),
        ({"x": (-20000, 1), "y": (-20000, 1), "code": 10}, "-0.5 × -0.5 µm/px is outside"),
        ({"y": (10000, 1)}, "0.5 × 1 µm/px: x and y are more than 2% apart"),
        ({"x": (0, 1)}, "does not say its scale"),
        ({"y": (0, 0)}, "does not say its scale"),
        ({"unit": 1}, "does not say its scale"),
        ({"unit": 9}, "does not say its scale"),
    ],
)
def test_resolutions_that_are_no_slides_are_refused_with_the_cause(tmp_path, layout, tags, why):
    with pytest.raises(ScaleUnknownError, match=why):
        scale_of(tagged(tmp_path / "s.tif", **tags, **LAYOUTS[layout]))


def test_pillows_dots_an_inch_are_a_scale_only_if_a_slides(tmp_path):
    for dpi, um in ((50800, 0.5), (101600, 0.25)):
        Image.fromarray(solid(60, 40)).save(tmp_path / "s.tif", dpi=(dpi, dpi))
        assert scale_of(tmp_path / "s.tif")[:2] == pytest.approx((um, um))
    Image.fromarray(solid(60, 40)).save(tmp_path / "s.tif", dpi=(300, 300))
    with pytest.raises(ScaleUnknownError, match="84"):
        scale_of(tmp_path / "s.tif")


@pytest.mark.parametrize(
    ("unit", "per_unit"), [("um", 2), ("micron", 2), (r"\u00B5m", 2), ("nm", 0.002), ("mm", 2000), ("inch", 50800)]
)
def test_imagej_states_the_unit_of_the_resolution_in_its_lines(tmp_path, unit, per_unit):
    path = tmp_path / "s.tif"
    about = {"axes": "YXS", "unit": unit}
    tifffile.imwrite(path, solid(60, 40), imagej=True, resolution=(per_unit, per_unit), metadata=about)
    assert scale_of(path)[:2] == pytest.approx((0.5, 0.5), rel=1e-5)


@pytest.mark.parametrize("about", [{"unit": "pixel"}, {"unit": "sec"}, {}])
def test_imagej_without_a_unit_of_length_states_no_scale(tmp_path, about):
    tifffile.imwrite(
        tmp_path / "s.tif", solid(60, 40), imagej=True, resolution=(2, 2), metadata={"axes": "YXS"} | about
    )
    with pytest.raises(ScaleUnknownError, match="does not say its scale"):
        scale_of(tmp_path / "s.tif")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "units"), [(0.25, "µm"), (250, "nm"), (0.00025, "mm"), (0.25, None)])
def test_ome_xml_is_read_in_every_layout_and_byte_order(tmp_path, order, layout, size, units):
    about = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    about |= {} if units is None else {"PhysicalSizeXUnit": units, "PhysicalSizeYUnit": units}
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(
        path, solid(300, 280), ome=True, byteorder=order, photometric="rgb", metadata=about, **LAYOUTS[layout]
    )
    assert scale_of(path) == (pytest.approx(0.25), pytest.approx(0.25), "OME-XML")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_resolution_for_printing_does_not_hide_the_scale_in_ome_xml(tmp_path, layout):
    about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    printing = {"resolution": (72, 72), "resolutionunit": "INCH"}
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, solid(300, 280), ome=True, photometric="rgb", metadata=about, **printing, **LAYOUTS[layout])
    assert scale_of(path) == (0.25, 0.25, "OME-XML")


@pytest.mark.parametrize("size", ["NaN", "INF", "1e999", "0", "", "wide"])
def test_a_size_in_ome_xml_that_is_no_number_is_no_scale(size):
    text = f'<OME><Pixels SizeX="3" SizeY="2" PhysicalSizeX="{size}" PhysicalSizeY="0.5"/></OME>'
    assert ome_scale(text, SizePx(3, 2)) is None


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
