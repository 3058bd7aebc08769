"""What a DICOM file says about itself: its own series, whatever it refers to and whatever it is called."""

import numpy as np
import pytest
from dicom_for_tests import write_ct, write_dicom, write_header
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from slides_for_tests import solid

from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.dicom import dicom_facts, dicom_series, series_files


@pytest.mark.parametrize("sequence", ["ReferencedSeriesSequence", "SourceImageSequence", "ReferencedStudySequence"])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_series_that_is_referred_to_is_not_the_files_own(tmp_path, sequence, syntax):
    path = write_header(tmp_path / "a.dcm", "1.2.3", refers=(sequence, "1.2.99"), syntax=syntax)
    assert dicom_series(path)[1] == "1.2.3"


@pytest.mark.parametrize("name", ["a.dcm", "A.DCM", "I0001", "1.2.840.5"])
def test_dicom_is_known_by_its_content_under_any_name(tmp_path, name):
    path = write_dicom(tmp_path / name, solid(256, 256), series="1.2.3", shows="LABEL")
    assert dicom_series(path)[1] == "1.2.3"
    assert dicom_facts(path).shows == "LABEL"
    assert dicom_facts(path).kind_name == "VL Whole Slide Microscopy Image Storage"


def test_a_series_is_the_files_of_its_folder_with_its_uid_whatever_they_are_called(tmp_path):
    names = ("1.DCM", "2.dcm", "I3")
    ours = [write_header(tmp_path / name, "1.2.3") for name in names]
    other = write_header(tmp_path / "other.dcm", "1.2.34")
    (tmp_path / "notes.txt").write_text("x" * 200)
    assert all(series_files(path) == ours for path in ours)
    assert series_files(other) == [other]


def test_other_kinds_of_dicom_are_named(tmp_path):
    assert dicom_facts(write_ct(tmp_path / "ct")).kind_name == "CT Image Storage"


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(132), bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(300)])
def test_a_file_without_readable_tags_has_no_series(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    assert dicom_series(path) is None
    assert series_files(path) == [path]


def test_damaged_tags_end_in_no_series_and_no_other_error(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", solid(256, 256), series="1.2.3", refers="1.2.9")
    whole, rng = path.read_bytes(), np.random.default_rng(2)
    for _ in range(60):
        content = bytearray(whole)
        content[rng.integers(132, 700)] = rng.integers(256)
        path.write_bytes(content[: rng.integers(140, len(whole))])
        assert (dicom_series(path) or ("", ""))[1] != "1.2.9"


def test_a_file_that_changes_is_read_again(tmp_path):
    path = write_header(tmp_path / "a.dcm", "1.2.3")
    assert dicom_series(path)[1] == "1.2.3"
    write_header(path, "1.2.3.4")
    assert dicom_series(path)[1] == "1.2.3.4"


def test_a_series_uid_that_two_studies_share_is_two_slides(tmp_path):
    one = write_dicom(tmp_path / "a", solid(256, 256), series="1.2.3", study="1.7")
    two = write_dicom(tmp_path / "b", solid(256, 256), series="1.2.3", study="1.8")
    assert (series_files(one), series_files(two)) == ([one], [two])


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "PatientID", "ContainerIdentifier"])
def test_files_that_openslide_would_mix_are_refused_without_their_values(tmp_path, tag):
    write_dicom(tmp_path / "a.dcm", solid(512, 512), series="1.2.3")
    write_dicom(tmp_path / "b.dcm", solid(256, 256), series="1.2.3", um_per_px=1.0, **{tag: "1.99"})
    for name, other in (("a.dcm", "b.dcm"), ("b.dcm", "a.dcm")):
        with pytest.raises(SlideUnreadableError, match=f"{other} .* different {tag}: .* a folder of their own") as told:
            open_slide(tmp_path / name)
        assert told.value.names == (other,)
        assert "1.99" not in str(told.value)


def test_slides_of_one_series_uid_in_folders_of_their_own_are_read_apart(tmp_path):
    for name, width, patient in (("one", 512, "P"), ("two", 256, "Q")):
        (tmp_path / name).mkdir()
        path = write_dicom(tmp_path / name / "a.dcm", solid(width, 256), series="1.2.3", PatientID=patient)
        with open_slide(path) as slide:
            assert slide.facts.size_l0.width == width


@pytest.mark.parametrize("tag", ["PatientID", "ContainerIdentifier", "FrameOfReferenceUID"])
def test_files_that_do_not_name_their_patient_or_slide_contradict_no_other(tmp_path, tag):
    write_dicom(tmp_path / "a.dcm", solid(512, 512), series="1.2.3")
    write_dicom(tmp_path / "b.dcm", solid(256, 256), series="1.2.3", um_per_px=1.0, **{tag: ""})
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.facts.size_l0.width == 512
