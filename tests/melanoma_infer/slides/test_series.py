"""Which DICOM files are read together, and whether they are one whole slide."""

import pydicom
import pytest
from dicom_for_tests import RESAMPLED, with_tags, write_ct, write_dicom, write_header
from slides_for_tests import noise, smooth, solid

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.search import find_slides
from melanoma_infer.slides.series import NO_BASE, OWN_FRAMES, UNKNOWN_FILE, series_files, spread_series

SERIES = "1.3.6.1.4.1.5962.99.1.77.4242.1"


def write_base(path, **tags):
    return write_dicom(path, noise(512, 512), **{"series": SERIES, **tags})


def write_level(path, **tags):
    return write_dicom(path, noise(256, 256), **{"series": SERIES, "um_per_px": 1.0, "ImageType": RESAMPLED, **tags})


def cut(path, before=None, *, share=0.6):
    """Shorten a file to the bytes before a value, or to a share."""
    content = path.read_bytes()
    path.write_bytes(content[: content.index(before) if before else int(share * len(content))])
    return path


def doubts(path):
    with open_slide(path) as slide:
        return slide.facts.doubts


def test_a_series_is_the_files_of_its_folder_with_its_uid_whatever_they_are_called(tmp_path):
    names = ("1.DCM", "2.dcm", "I3")
    ours = [write_header(tmp_path / name, "1.2.3") for name in names]
    other = write_header(tmp_path / "other.dcm", "1.2.34")
    (tmp_path / "notes.txt").write_text("x" * 200)
    assert all(series_files(path) == ours for path in ours)
    assert series_files(other) == [other]


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


def test_two_patients_are_not_merged_where_the_file_that_is_opened_names_none(tmp_path):
    label = with_tags(
        write_dicom(tmp_path / "a", solid(256, 256), series="1.2.3", shows="LABEL"),
        PatientID="",
        ContainerIdentifier="",
    )
    write_dicom(tmp_path / "b", smooth(1024, 512), series="1.2.3")
    other = write_dicom(tmp_path / "c", smooth(512, 256), series="1.2.3", um_per_px=1.0)
    with open_slide(label) as slide:
        assert len(slide.facts.level_sizes) == 2
    with_tags(other, PatientID="Q")
    with pytest.raises(SlideUnreadableError, match="b and c have the same SeriesInstanceUID but a different PatientID"):
        open_slide(label)


def test_images_of_one_series_that_are_not_equally_wide_are_no_levels_of_one_slide(tmp_path):
    path = write_dicom(tmp_path / "a", smooth(512, 512), series="1.2.3")
    write_dicom(tmp_path / "b", smooth(256, 256), series="1.2.3")
    with pytest.raises(SlideUnreadableError, match="different width in mm"):
        open_slide(path)


def test_a_whole_series_leaves_no_doubts(tmp_path):
    write_base(tmp_path / "a")
    write_level(tmp_path / "b")
    assert doubts(tmp_path / "a") == doubts(tmp_path / "b") == ()


@pytest.mark.parametrize("before", [b"SM", SERIES.encode(), b"TILED_FULL", None])
def test_a_slide_is_not_read_from_its_lower_levels_where_another_file_is_cut(tmp_path, before):
    cut(write_base(tmp_path / "base.dcm"), before)
    level = write_level(tmp_path / "level.dcm")
    with pytest.raises(SlideUnreadableError, match=r"^base.dcm, .* is damaged or incomplete.*Copy it again") as told:
        open_slide(level)
    assert told.value.names == ("base.dcm",)
    with pytest.raises(SlideUnreadableError, match=r"^The DICOM file is damaged or incomplete"):
        open_slide(tmp_path / "base.dcm")


def test_a_slide_is_not_read_where_a_lower_level_or_its_label_is_cut(tmp_path):
    base = write_base(tmp_path / "base")
    for name, tags in (("level", {}), ("label", {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]})):
        file = cut(write_level(tmp_path / name, **tags))
        with pytest.raises(SlideUnreadableError, match=f"^{name}, which belongs to this slide, is damaged"):
            open_slide(base)
        file.unlink()


def test_lower_levels_without_their_base_are_read_with_a_warning(tmp_path):
    level = write_level(tmp_path / "level")
    assert doubts(level) == (NO_BASE,)
    write_ct(tmp_path / "ct")
    assert doubts(level) == (NO_BASE,)


def test_a_cut_file_that_may_be_the_base_is_a_doubt_where_levels_are_not_marked(tmp_path):
    unmarked = write_base(tmp_path / "a")
    lost = cut(write_base(tmp_path / "lost", series="1.2.9"), b"1.2.9")
    assert doubts(unmarked) == (UNKNOWN_FILE,)
    write_level(tmp_path / "b")
    assert doubts(unmarked) == ()  # the marks show that the base is there
    lost.unlink()


@pytest.mark.parametrize("tag", ["study", "PatientID"])
def test_a_cut_file_of_another_study_or_patient_stops_no_slide(tmp_path, tag):
    cut(write_base(tmp_path / "lost", **{tag: "1.2.99"}), SERIES.encode())
    assert doubts(write_level(tmp_path / "level")) == (NO_BASE,)


def test_two_scans_that_differ_in_their_frame_of_reference_alone_are_not_merged(tmp_path):
    one = write_base(tmp_path / "a", FrameOfReferenceUID="1.7")
    write_dicom(tmp_path / "b", noise(256, 256), series=SERIES, um_per_px=1.0, FrameOfReferenceUID="1.8")
    with pytest.raises(SlideUnreadableError, match=r"different FrameOfReferenceUID.*a folder of their own"):
        open_slide(one)


def test_a_level_of_another_scan_is_not_merged_where_other_levels_share_their_frame(tmp_path):
    one = write_base(tmp_path / "a", FrameOfReferenceUID="1.7")
    level = write_level(tmp_path / "b", FrameOfReferenceUID="1.8")
    assert doubts(one) == (OWN_FRAMES,)  # some writers give each level its own
    write_dicom(
        tmp_path / "c", noise(1024, 1024), series=SERIES, um_per_px=0.25, FrameOfReferenceUID="1.7", ImageType=RESAMPLED
    )
    with pytest.raises(SlideUnreadableError, match="different FrameOfReferenceUID"):
        open_slide(level)


def test_a_label_may_have_a_frame_of_reference_of_its_own(tmp_path):
    write_base(tmp_path / "a", FrameOfReferenceUID="1.7")
    write_level(tmp_path / "b", FrameOfReferenceUID="1.7")
    label = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    write_dicom(tmp_path / "c", solid(256, 256), series=SERIES, FrameOfReferenceUID="1.8", ImageType=label)
    assert doubts(tmp_path / "a") == ()


@pytest.fixture
def folders(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path


def spread(folder):
    return {path.parent.name: str(error) for path, error in spread_series(find_slides([folder]).paths).items()}


def test_levels_in_two_folders_are_no_two_slides(folders):
    write_base(folders / "one" / "a")
    write_level(folders / "two" / "b")
    assert spread(folders) == {
        "one": "Other files of this DICOM series are in another folder (two/). Copy all files of the slide into one "
        "folder.",
        "two": "Other files of this DICOM series are in another folder (one/). Copy all files of the slide into one "
        "folder.",
    }
    (folders / "two" / "c").write_bytes((folders / "one" / "a").read_bytes())
    assert spread(folders).keys() == {"one", "two"}  # the second folder is whole, the first is a part of it


def test_copies_of_a_series_are_not_parts_of_it(folders):
    for name in ("one", "two"):
        write_base(folders / name / "a", SOPInstanceUID="1.5")
        write_level(folders / name / "b", SOPInstanceUID="1.6")
    assert spread(folders) == {}


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientID": "Q"},
        {"FrameOfReferenceUID": "1.9", "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]},
        {"study": "1.9"},
    ],
)
def test_slides_that_share_a_series_uid_and_labels_are_no_levels_of_a_slide_elsewhere(folders, tags):
    write_base(folders / "one" / "a")
    write_level(folders / "two" / "b", **tags)
    assert spread(folders) == {}


def test_two_scans_of_one_size_in_folders_of_their_own_are_two_slides(folders):
    write_base(folders / "one" / "a")
    write_base(folders / "two" / "a")
    assert spread(folders) == {}


@pytest.mark.parametrize("tag", ["SeriesInstanceUID", "SOPInstanceUID", "ImageType"])
def test_a_tag_that_is_missing_is_named(tmp_path, tag):
    data = pydicom.dcmread(write_base(tmp_path / "a"))
    delattr(data, tag)
    data.save_as(tmp_path / "a")
    with pytest.raises(SlideFormatError, match=f"has no {tag}, without which"):
        open_slide(tmp_path / "a")
