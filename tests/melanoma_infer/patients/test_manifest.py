"""Manifests: what a CSV says of each slide, and what it must not get wrong."""

import pytest
from bundles_for_tests import colour_rule_card

from melanoma_infer.card import UNKNOWN
from melanoma_infer.errors import PatientValueError, UsageError
from melanoma_infer.patients.manifest import parse_scale, read_manifest

CARD = colour_rule_card(
    outputs=("features",),
    patient_fields=[
        {"name": "age", "values": ["young", "old"], "edges": [50]},
        {"name": "sex", "values": ["female", "male"]},
        {"name": "braf", "values": ["V600E", "wild"]},
    ],
)


def manifest(folder, text, *, encoding="utf-8"):
    path = folder / "patients.csv"
    path.write_bytes(text.encode(encoding))
    return read_manifest(path, CARD)


def test_a_full_row_is_read_into_what_the_pipeline_uses(tmp_path):
    text = (
        "id,slide,case_id,age,sex,site,ulceration,specimen,stain,mpp,braf\n"
        'A-1,deep/one.svs,C7,63,Female,trunk,yes,Primary,he,"0.25,0.26",v600e\n'
    )
    (row,) = manifest(tmp_path, text).rows
    assert row.path == tmp_path / "deep" / "one.svs"
    assert (row.id, row.case_id, row.specimen, row.stain) == ("A-1", "C7", "primary", "H&E")
    assert row.mpp_um == (0.25, 0.26)
    assert row.patient.values == {"age": "old", "sex": "female", "braf": "V600E"}
    assert row.patient.ulceration == "yes"
    assert row.misread == ()


def test_a_column_of_slides_is_enough(tmp_path):
    one, two = manifest(tmp_path, "slide\none.svs\nsub/two.svs\n").rows
    assert (one.id, two.id) == ("one", "two")
    assert (one.case_id, one.mpp_um, one.stain, one.specimen) == (None, None, None, None)
    assert set(one.patient.values.values()) == {UNKNOWN}


def test_what_is_not_understood_is_unknown_and_counted_by_column(tmp_path):
    text = "slide,age,sex,stain,specimen\na.svs,200,male,blue,primary\nb.svs,old one,female,H&E,leg\nc.svs,,,,\n"
    found = manifest(tmp_path, text)
    assert found.misread == {"age": 2, "stain": 1, "specimen": 1}
    assert [row.patient.values["age"] for row in found.rows] == [UNKNOWN] * 3
    assert [(row.stain, row.specimen) for row in found.rows] == [(None, "primary"), ("H&E", None), (None, None)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, encoding):
    (row,) = manifest(tmp_path, "slide,id\r\nMüller.svs,Ä1\r\n", encoding=encoding).rows
    assert (row.path.name, row.id) == ("Müller.svs", "Ä1")


@pytest.mark.parametrize("mpp", ["nearly", "0", "-0.25", "0.25,0.25,0.25", "nan", "inf"])
def test_a_scale_that_is_none_is_refused_with_its_line_and_never_unknown(tmp_path, mpp):
    with pytest.raises(PatientValueError, match=r"Line 3 of the manifest: A scale is X or X,Y"):
        manifest(tmp_path, f'slide,mpp\na.svs,0.5\nb.svs,"{mpp}"\n')


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    with pytest.raises(PatientValueError, match=r"Line 4 of"):
        manifest(tmp_path, "slide,mpp\na.svs,0.5\n\nb.svs,x\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column `slide`"),
        ("name,age\na.svs,3\n", "no column `slide`"),
        ("slide,age\na.svs\n", "Line 2 of the manifest has 1 column; the header has 2"),
        ("slide,age\na.svs,1,2\n", "Line 2 of the manifest has 3 columns; the header has 2"),
        ("slide,age\n ,1\n", "Line 2 of the manifest names no slide"),
        ('slide\n"a.svs\n', "cannot be read"),
        ("slide,id\na.svs,1\nb.svs,1\n", "repeats 1 ids"),
        ("slide\na/x.svs\nb/x.svs\n", "repeats 1 ids"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path, text, says):
    with pytest.raises(PatientValueError, match=says):
        manifest(tmp_path, text)


def test_a_manifest_that_is_missing_or_not_utf_8_is_refused(tmp_path):
    with pytest.raises(PatientValueError, match="Save it as CSV"):
        read_manifest(tmp_path / "none.csv", CARD)
    with pytest.raises(PatientValueError, match="Save it as CSV"):
        manifest(tmp_path, "slide\nMüller.svs\n", encoding="latin-1")


def test_a_row_is_found_by_path_and_else_by_a_name_that_is_unique(tmp_path):
    found = manifest(tmp_path, "id,slide\n1,a/x.svs\n2,b/x.svs\n3,b/y.svs\n")
    assert found.row_of(tmp_path / "b" / "x.svs").id == "2"
    assert found.row_of(tmp_path / "b" / ".." / "a" / "x.svs").id == "1"
    assert found.row_of(tmp_path / "elsewhere" / "y.svs").id == "3"
    assert found.row_of(tmp_path / "elsewhere" / "x.svs") is None
    assert found.row_of(tmp_path / "z.svs") is None


@pytest.mark.parametrize(
    ("text", "scale"), [("0.25", (0.25, 0.25)), ("0.25,0.5", (0.25, 0.5)), ("0.25x0.5", (0.25, 0.5)), ("1", (1.0, 1.0))]
)
def test_a_scale_is_one_number_or_two(text, scale):
    assert parse_scale(text) == scale


@pytest.mark.parametrize("text", ["", ",", "0.25,", "a", "0", "0.25;0.25", "1,2,3"])
def test_anything_else_is_no_scale(text):
    with pytest.raises(UsageError, match=r"0\.25"):
        parse_scale(text)
