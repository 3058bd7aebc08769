"""Manifests: what a CSV says about each slide, and what it must not get wrong."""

import pytest
from bundles_for_tests import colour_rule_card

from melanoma_infer.card import UNKNOWN
from melanoma_infer.errors import PatientValueError
from melanoma_infer.patients.manifest import numbered, read_manifest

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
    assert row.misread == {}


def test_a_column_of_slides_is_enough(tmp_path):
    one, two = manifest(tmp_path, "slide\none.svs\nsub/two.svs\n").rows
    assert (one.id, two.id) == ("one", "two")
    assert (one.case_id, one.mpp_um, one.stain, one.specimen) == (None, None, None, None)
    assert set(one.patient.values.values()) == {UNKNOWN}


def test_what_is_not_understood_is_unknown_and_named_with_its_line_column_and_value(tmp_path):
    text = "slide,age,sex,stain,specimen\na.svs,200,M,blue,primary\nb.svs,200,F,H&E,leg\nc.svs,old one,,n/a,\n"
    found = manifest(tmp_path, text)
    ages = "Give a number from 0 to 120, young, old or unknown."
    assert found.doubts == [
        f"lines 2 and 3, column age: '200' is not allowed. {ages}",
        "line 2, column stain: 'blue' is not allowed. Give H&E, IHC, fluorescence, other or unknown.",
        "line 3, column specimen: 'leg' is not allowed. Give primary, re-excision, metastasis, other or unknown.",
        f"line 4, column age: 'old one' is not allowed. {ages}",
    ]
    assert [row.patient.values["sex"] for row in found.rows] == ["male", "female", UNKNOWN]
    assert [row.patient.values["age"] for row in found.rows] == [UNKNOWN] * 3
    assert [(row.stain, row.specimen) for row in found.rows] == [(None, "primary"), ("H&E", None), (None, None)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, encoding):
    (row,) = manifest(tmp_path, "slide,id\r\nMüller.svs,Ä1\r\n", encoding=encoding).rows
    assert (row.path.name, row.id) == ("Müller.svs", "Ä1")


@pytest.mark.parametrize("mpp", ["nearly", "0", "-0.25", "0.25,0.25,0.25", "nan", "inf"])
def test_a_scale_that_is_none_is_refused_with_its_line_and_never_unknown(tmp_path, mpp):
    with pytest.raises(PatientValueError, match=r"Line 3 of the manifest: '.*' is no scale. Give X or X,Y"):
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
        ('slide\n"a.svs\n', "Line 2 of the manifest is not valid CSV"),
        ("slide,age,age\na.svs,1,2\n", "the column age more than once"),
        ("slide,AGE,age \na.svs,1,2\n", "the column age more than once"),
        ("slide,age\n,\n", "no row below its header"),
        ("slide age\na.svs 1\n", "separated by commas, semicolons, tabs or vertical bars"),
        ("sep=;\nslide,age\na.svs,1\n", "the line below `sep=;` must name the columns"),
        ("sep=:\nslide:age\na.svs:1\n", "Line 1 of the manifest says that ':' separates its columns. Save it as CSV"),
        ('slide,id\na.svs,"S\n1"\n', r"Line 3 of the manifest: id: 'S\\n1' has a line break"),
        ("slide,case_id\na.svs,C\a1\n", r"Line 2 of the manifest: case_id: 'C\\x071' has a line break or another"),
        ("slide,age\na.svs,1953-04-01\n", "Line 2 of the manifest: age: '1953-04-01' is a date"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path, text, says):
    with pytest.raises(PatientValueError, match=says):
        manifest(tmp_path, text)


def test_a_manifest_that_is_missing_or_not_utf_8_is_refused(tmp_path):
    with pytest.raises(PatientValueError, match=r"cannot be read .No such file"):
        read_manifest(tmp_path / "none.csv", CARD)
    with pytest.raises(PatientValueError, match=r"Line 2 of the manifest is not text in UTF-8. Save it as CSV"):
        manifest(tmp_path, "slide\nMüller.svs\n", encoding="latin-1")
    with pytest.raises(PatientValueError, match=r"The manifest is a spreadsheet file, not text. Save it as CSV"):
        manifest(tmp_path, "PK\x03\x04slide\n")


@pytest.mark.parametrize(
    ("separator", "word"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
@pytest.mark.parametrize("header", ["slide,id,age,sex", "SLIDE,Id,Age,Sex", " slide , id , age , sex "])
def test_separators_capitals_and_spaces_in_the_header_change_nothing(tmp_path, separator, word, header):
    found = manifest(tmp_path, f"{header}\n a.svs , S1 , 72.0 , F \n".replace(",", separator))
    (row,) = found.rows
    assert (row.path, row.id) == (tmp_path / "a.svs", "S1")
    assert row.patient.values == {"age": "old", "sex": "female", "braf": UNKNOWN}
    assert (found.separator, found.doubts) == (word, [])


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;", "\ufeffsep=;"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_separator_that_a_spreadsheet_states_is_used_and_said(tmp_path, line, end):
    found = manifest(tmp_path, end.join([line, "slide;id;age", "a,b.svs;S1;52,5", "b.svs;S2;x", ""]))
    assert [(row.path.name, row.id, row.line) for row in found.rows] == [("a,b.svs", "S1", 3), ("b.svs", "S2", 4)]
    assert found.rows[0].patient.values["age"] == "old"
    assert found.separator == "semicolons, as its first line says"


def test_a_stated_comma_is_said_too(tmp_path):
    assert manifest(tmp_path, "sep=,\nslide,id\na.svs,S1\n").separator == "commas, as its first line says"


def test_a_spreadsheets_unicode_text_is_read(tmp_path):
    (row,) = manifest(tmp_path, "slide\tid\r\nMüller.svs\tÄ1\r\n", encoding="utf-16").rows
    assert (row.path.name, row.id) == ("Müller.svs", "Ä1")


def test_decimal_commas_are_read_where_they_have_one_meaning(tmp_path):
    one, two = manifest(tmp_path, "slide;age;mpp\na.svs;49,5;0,25\nb.svs;50,0;0.25,0.5\n").rows
    assert [row.patient.values["age"] for row in (one, two)] == ["young", "old"]
    assert (one.mpp_um, two.mpp_um) == ((0.25, 0.25), (0.25, 0.5))
    with pytest.raises(PatientValueError, match=r"Line 2 .*'1,2' may mean 1\.2 or two scales"):
        manifest(tmp_path, "slide;mpp\na.svs;1,2\n")


def test_columns_that_nothing_reads_are_named_as_they_are_written_and_never_guessed(tmp_path):
    found = manifest(tmp_path, "slide,Age_Years,gender,site,,\na.svs,82,male,trunk,note,\n")
    assert found.unused == ("Age_Years", "gender", "site", "number 5 (no name)")
    assert found.doubts == [
        "not used: Age_Years, gender, site, number 5 (no name). "
        "Its columns can be slide, id, case_id, ulceration, specimen, stain, mpp, age, sex, braf."
    ]
    assert set(found.rows[0].patient.values.values()) == {UNKNOWN}


def test_quotes_after_a_space_and_cells_beyond_the_header_change_nothing(tmp_path):
    (row,) = manifest(tmp_path, 'slide, "id", age\na.svs, "S,1", 82,,\n').rows
    assert (row.path.name, row.id, row.patient.values["age"]) == ("a.svs", "S,1", "old")


@pytest.mark.parametrize("before", [",,\n", "\n \n"])
def test_empty_lines_before_a_header_whose_cells_have_line_breaks_change_nothing(tmp_path, before):
    found = manifest(tmp_path, before + '"years\nold",slide,age\n82,a.svs,82\n')
    assert (found.rows[0].patient.values["age"], found.unused) == ("old", ("years\nold",))


@pytest.mark.parametrize(
    ("letters", "words", "named"),
    [
        ("MF", ["male", "female"], []),
        ("MW", ["male", UNKNOWN], ["W"]),
        ("MH", [UNKNOWN, UNKNOWN], ["M", "H"]),
        ("nf", [UNKNOWN, UNKNOWN], ["n", "f"]),
    ],
)
def test_a_letter_that_means_the_other_sex_in_the_columns_language_is_named(tmp_path, letters, words, named):
    found = manifest(tmp_path, f"slide,sex\na.svs,{letters[0]}\nb.svs,{letters[1]}\n")
    assert [row.patient.values["sex"] for row in found.rows] == words
    assert [doubt.split("'")[1] for doubt in found.doubts] == named


def test_slides_of_one_case_may_differ_in_age_and_not_in_sex(tmp_path):
    text = "slide,case_id,age,sex\na,1,30,M\nb,1,82,male\nc,2,30,M\nd,2,30,F\ne,2,30,\nf,,30,F\ng,,30,M\n"
    found = manifest(tmp_path, text)
    assert found.doubts == [
        "lines 4 and 5, column sex: slides of one case differ. Check that each row is the right patient's."
    ]


def test_rows_and_columns_that_are_empty_are_left_out(tmp_path):
    found = manifest(tmp_path, "slide,id,,\n,,,\na.svs,S1,,\n\n,,,\n")
    assert ([(row.line, row.id) for row in found.rows], found.doubts) == ([(3, "S1")], [])


def test_words_for_missing_are_no_id_and_no_case(tmp_path):
    (row,) = manifest(tmp_path, "slide,id,case_id\na.svs,NaN,n/a\n").rows
    assert (row.id, row.case_id) == ("a", None)


def test_the_id_of_a_windows_path_is_its_file_name(tmp_path):
    (row,) = manifest(tmp_path, "slide\nC:\\patients\\Meier\\7.svs\n").rows
    assert row.id == "7"


def test_a_number_at_the_end_of_a_slides_name_is_part_of_its_id(tmp_path):
    one, two = manifest(tmp_path, "slide\n1.2.840.1\n1.2.840.2\n").rows
    assert (one.id, two.id) == ("1.2.840.1", "1.2.840.2")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([2], "line 2"),
        ([2, 3], "lines 2 and 3"),
        ([2, 3, 9], "lines 2, 3 and 9"),
        ([2, 3, 4, 5, 6], "lines 2, 3, 4 and 2 more"),
    ],
)
def test_lines_are_listed_and_many_are_counted(lines, words):
    assert numbered(lines) == words
