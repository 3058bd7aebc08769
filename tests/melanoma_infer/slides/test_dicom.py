"""What a DICOM file says about itself: its own series, whatever it refers to and whatever it is called."""

import numpy as np
import pydicom
import pytest
from dicom_for_tests import RESAMPLED, write_ct, write_dicom, write_directory, write_header
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from slides_for_tests import noise, solid

from melanoma_infer.slides.dicom import WHOLE_SLIDE, dicom_facts, dicom_series


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


def test_other_kinds_of_dicom_are_named(tmp_path):
    assert dicom_facts(write_ct(tmp_path / "ct")).kind_name == "CT Image Storage"


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(132), bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(300)])
def test_a_file_without_readable_tags_has_no_series(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    assert dicom_series(path) is None


def test_damaged_tags_end_in_no_series_and_no_other_error(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", solid(256, 256), series="1.2.3", refers="1.2.9")
    whole, rng = path.read_bytes(), np.random.default_rng(2)
    for _ in range(60):
        content = bytearray(whole)
        content[rng.integers(132, 700)] = rng.integers(256)
        path.write_bytes(content[: rng.integers(140, len(whole))])
        assert (dicom_series(path) or ("", ""))[1] != "1.2.9"


LONG = "1.3.6.1.4.1.5962.99.1.77.4242.1"
"""Not under the root of pydicom, whose UIDs are random: one of a hundred would begin with it."""


@pytest.fixture(params=["compressed", "plain", "padded"])
def whole(request, tmp_path):
    """The bytes of a slide image in 2 tiles, of which the last are pixels, or padding behind them."""
    path = write_dicom(tmp_path / "whole.dcm", noise(512, 256), series=LONG, refers="1.2.9")
    data = pydicom.dcmread(path)
    if request.param == "plain":
        data.decompress()
    if request.param == "padded":
        data.DataSetTrailingPadding = bytes(40)
    data.save_as(path)
    return path.read_bytes()


def test_a_slide_image_that_is_cut_anywhere_is_not_whole_and_keeps_its_series_or_none(tmp_path, whole):
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole)
    assert dicom_facts(path).is_whole
    end = len(whole) - 52 if bytes(40) == whole[-40:] else len(whole)
    for size in {*range(140, 2500, 7), *range(2500, end, 1999), end - 1}:
        path.write_bytes(whole[:size])
        facts = dicom_facts(path)
        assert not facts.is_whole
        assert facts.series in (None, LONG)
        assert (facts.series == LONG) == (size >= whole.index(LONG.encode()) + len(LONG))


def test_a_copy_that_ends_in_zeros_is_not_whole(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", noise(512, 256), series=LONG)
    content = path.read_bytes()
    kept = int(0.6 * len(content))
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    assert not dicom_facts(path).is_whole


def test_tags_before_a_cut_are_known(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", solid(256, 256), series=LONG, study="1.7", ImageType=RESAMPLED)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(LONG.encode())])
    facts = dicom_facts(path)
    assert (facts.kind, facts.study, facts.patient_id, facts.series) == (WHOLE_SLIDE, "1.7", "P", None)
    assert facts.is_resampled


def test_only_slide_images_must_have_pixels(tmp_path):
    assert dicom_facts(write_ct(tmp_path / "ct")).is_whole
    assert dicom_facts(write_directory(tmp_path / "DICOMDIR")).is_whole
    assert not dicom_facts(write_header(tmp_path / "slide", "1.2.3")).is_whole


def test_a_file_that_changes_is_read_again(tmp_path):
    path = write_header(tmp_path / "a.dcm", "1.2.3")
    assert dicom_series(path)[1] == "1.2.3"
    write_header(path, "1.2.3.4")
    assert dicom_series(path)[1] == "1.2.3.4"
