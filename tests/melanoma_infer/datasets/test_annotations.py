"""Annotations from QuPath: every form that its versions write is read, and what cannot be meant is named."""

import json

import pytest
from datasets_for_tests import breslow, feature, polygon, square, write_geojson
from hypothesis import given, settings
from hypothesis import strategies as st
from results_for_tests import RING, hand_made_region, hand_made_result

from melanoma_infer.datasets.annotations import find_annotations, read_annotations
from melanoma_infer.errors import DatasetError
from melanoma_infer.reports import regions_geojson
from melanoma_infer.result import BoundsOut

SQUARE = polygon(square(10, 20, 30))


def read(tmp_path, parsed):
    path = tmp_path / "s.geojson"
    path.write_text(parsed if isinstance(parsed, str) else json.dumps(parsed), encoding="utf-8")
    return read_annotations(path)


@pytest.mark.parametrize(
    ("properties", "id_", "name"),
    [
        ({"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}, "u-u-i-d", "Tumor"),
        ({"objectType": "annotation", "classification": {"names": ["Tumor", "Deep"]}}, "u-u-i-d", "Tumor: Deep"),
        ({"object_type": "annotation", "classification": {"name": "Tumor", "colorRGB": -3670016}}, None, "Tumor"),
        ({"classification": {"name": " Tumor ", "colorRGB": 1}, "isLocked": False}, "PathAnnotationObject", "Tumor"),
        ({"classification": "Tumor"}, None, "Tumor"),
        ({"objectType": "annotation"}, "u-u-i-d", "Unclassified"),
        ({}, None, "Unclassified"),
        (None, None, "Unclassified"),
    ],
    ids=["0.4", "0.4-nested", "0.3", "0.2", "text", "no-class", "no-properties", "null-properties"],
)
@pytest.mark.parametrize("form", ["collection", "list", "single"])
def test_the_class_is_read_in_every_form_that_qupath_has_written(tmp_path, form, properties, id_, name):
    one = {"type": "Feature", "id": id_, "geometry": SQUARE, "properties": properties}
    forms = {"collection": {"type": "FeatureCollection", "features": [one]}, "list": [one], "single": one}
    (area,) = read(tmp_path, forms[form]).areas
    assert (area.name, area.area, area.box) == (name, 900, (10, 20, 40, 50))


@pytest.mark.parametrize(("kind", "id_"), [("detection", "u"), ("cell", "u"), ("tile", "u"), (None, "PathTileObject")])
def test_what_is_no_annotation_is_left_out(tmp_path, kind, id_):
    one = {"type": "Feature", "id": id_, "geometry": SQUARE, "properties": {"objectType": kind} if kind else {}}
    assert [area.name for area in read(tmp_path, [one, feature(SQUARE, "Tumor")]).areas] == ["Tumor"]
    with pytest.raises(DatasetError, match=r"s\.geojson holds 1 object, such as detections, and no annotation"):
        read(tmp_path, [one])


def test_children_inside_their_parents_are_read_too(tmp_path):
    child = feature(polygon(square(15, 25, 5)), "Nest")
    found = read(tmp_path, [feature(SQUARE, "Tumor", childObjects=[child])])
    assert [(area.name, area.area) for area in found.areas] == [("Tumor", 900), ("Nest", 25)]


def test_holes_are_not_part_of_an_area_and_each_polygon_is_one(tmp_path):
    holed = [square(0, 0, 100), square(10, 10, 20), square(50, 50, 30)[::-1]]
    many = {"type": "MultiPolygon", "coordinates": [holed, [square(200, 0, 10)]]}
    first, second = read(tmp_path, [feature(many, "Tumor")]).areas
    assert (first.area, len(first.rings)) == (100**2 - 20**2 - 30**2, 3)
    assert second.area == 100


def test_a_line_named_breslow_is_a_thickness_by_its_name_or_its_class(tmp_path):
    named = breslow([1, 2], [4, 6])
    classed = feature({"type": "LineString", "coordinates": [[0, 0, 0], [3, 4, 0]]}, "breslow")
    lines = read(tmp_path, [named, classed]).lines
    assert [line.ends.tolist() for line in lines] == [[[1, 2], [4, 6]], [[0, 0], [3, 4]]]


def test_qupath_s_frame_begins_at_the_slide_s_bounds_as_in_our_own_export(tmp_path):
    """What `regions.geojson` says in QuPath's frame is, moved back, where the region is on the slide."""
    result = hand_made_result(regions=[hand_made_region().model_dump(by_alias=True)])
    slide = result.slide.model_copy(update={"bounds": BoundsOut(x=40, y=25, width=600, height=450)})
    exported = regions_geojson.render(result.model_copy(update={"slide": slide})).decode()
    (area,) = read(tmp_path, exported).areas
    assert area.rings[0][0].tolist() == [RING[0][0] - 40, RING[0][1] - 25]
    (moved,) = read(tmp_path, exported).moved(40, 25).areas
    assert moved.rings[0].tolist() == RING
    assert moved.name == "malignant"


@pytest.mark.parametrize(
    ("parsed", "says"),
    [
        ("", "s.geojson is not JSON"),
        ("{", "s.geojson is not JSON"),
        ("[" * 100_000, "s.geojson is not JSON"),
        ("\udce4", "s.geojson is not JSON"),
        ([3], "feature 1 is not a GeoJSON feature"),
        ([feature({"type": "Point", "coordinates": [1, 2]}, "T")], "feature 1 is a Point, which has no area"),
        ([feature({}, "T")], "feature 1 is a feature without geometry, which has no area"),
        ([feature(SQUARE, "T"), feature(polygon(), "T")], "feature 2 is a polygon without a border"),
        ([feature(polygon([]), "T")], "feature 1: a coordinate is no number"),
        ([feature(polygon([[1, 2], [3]]), "T")], "feature 1: a coordinate is no number"),
        ([feature(polygon([[1, "x"], [3, 4], [5, 6]]), "T")], "feature 1: a coordinate is no number"),
        ([feature(polygon([[1, 1e400], [3, 4], [5, 6]]), "T")], "feature 1: a coordinate is no number"),
        ([feature(polygon([[1, 10**400], [3, 4], [5, 6]]), "T")], "feature 1: a coordinate is no number"),
        ([feature({"type": "Polygon", "coordinates": 7}, "T")], "feature 1: its coordinates are not a list"),
        ([feature({"type": "MultiPolygon", "coordinates": [7]}, "T")], "feature 1: its coordinates are not a list"),
        ([feature(polygon([[1, 1], [2, 2], [1, 1]]), "T")], r"feature 1 \(T\) has no area. Delete it in QuPath"),
        ([feature(SQUARE, "Breslow")], "feature 1 is named Breslow, and is no line of two points"),
        ([breslow([1, 2], [3, 4], [5, 6])], "feature 1 is named Breslow, and is no line of two points"),
    ],
)
def test_what_cannot_be_meant_is_named_by_file_and_feature(tmp_path, parsed, says):
    path = tmp_path / "s.geojson"
    text = parsed if isinstance(parsed, str) else json.dumps(parsed)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=says):
        read_annotations(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["type", "features", "geometry", "coordinates", "properties", "classification", "name", "names", "id",
             "objectType", "childObjects"]
        ),
        inner | st.sampled_from(["Polygon", "MultiPolygon", "LineString", "Feature", "annotation", "Breslow"]),
        max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_no_json_ends_with_anything_but_annotations_or_an_error_that_names_the_file(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "fuzzed.geojson"
    path.write_text(json.dumps(value))
    error = None
    try:
        read_annotations(path)
    except DatasetError as caught:
        error = caught
    assert error is None or "fuzzed.geojson" in str(error)


def test_a_slide_s_file_is_found_by_either_name_and_two_are_refused(tmp_path):
    slide = tmp_path / "deep" / "s.1.svs"
    with pytest.raises(DatasetError, match=r"s.1.svs has no annotations: there is neither s.1.geojson nor s.1.svs.ge"):
        find_annotations(tmp_path, slide)
    qupath = write_geojson(tmp_path / "s.1.svs.geojson")
    assert find_annotations(tmp_path, slide) == qupath
    plain = write_geojson(tmp_path / "s.1.geojson")
    with pytest.raises(DatasetError, match="has two files of annotations"):
        find_annotations(tmp_path, slide)
    qupath.unlink()
    assert find_annotations(tmp_path, slide) == plain
