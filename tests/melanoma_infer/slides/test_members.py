"""Which files make a slide, what its identity covers, and how many slides a folder holds."""

import os
import shutil
from pathlib import Path

import pytest
from dicom_for_tests import write_header
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_infer.errors import SlideUnreadableError, UsageError
from melanoma_infer.slides.members import MEBIBYTE, identify, members
from melanoma_infer.slides.search import find_slides
from melanoma_infer.slides.suffixes import SLIDE_SUFFIXES

SIZE = 3 * MEBIBYTE + 1234
QUICK = settings(deadline=None, max_examples=25, derandomize=True)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "large.svs"
    path.write_bytes(bytes(SIZE))
    return path


def digest_with_byte(path, at, **how):
    """The digest with one byte changed, which is then put back."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\1")
        file.flush()
        digest = identify(path, "quick", **how).digest
        file.seek(at)
        file.write(b"\0")
    return digest


@QUICK
@given(at=st.integers(0, MEBIBYTE - 1) | st.integers(SIZE - MEBIBYTE, SIZE - 1))
def test_any_byte_of_the_first_and_last_mib_changes_the_identity(large, at):
    assert digest_with_byte(large, at) != identify(large, "quick").digest


@pytest.mark.parametrize("at", [0, MEBIBYTE - 1, SIZE - MEBIBYTE, SIZE - 1])
def test_the_first_and_last_mib_reach_to_their_last_byte(large, at):
    assert digest_with_byte(large, at) != identify(large, "quick").digest


@pytest.mark.parametrize("at", [MEBIBYTE, SIZE // 2, SIZE - MEBIBYTE - 1])
def test_the_middle_is_seen_by_the_full_digest_alone(large, at):
    assert digest_with_byte(large, at) == identify(large, "quick").digest
    assert digest_with_byte(large, at, full=True) != identify(large, "quick", full=True).digest


def test_without_a_quickhash_all_bytes_are_hashed(large):
    whole = identify(large, None).digest
    with large.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"\1")
        file.flush()
        changed = identify(large, None).digest
        file.seek(SIZE // 2)
        file.write(b"\0")
    assert changed != whole


def test_size_and_quickhash_change_the_identity_and_name_and_time_do_not(tmp_path):
    one, two, longer = tmp_path / "one.svs", tmp_path / "two.svs", tmp_path / "longer.svs"
    one.write_bytes(bytes(SIZE))
    two.write_bytes(bytes(SIZE))
    longer.write_bytes(bytes(SIZE + 1))
    os.utime(two, ns=(5, 5))
    assert identify(one, "quick").digest == identify(two, "quick").digest
    assert identify(one, "quick").digest != identify(longer, "quick").digest
    assert identify(one, "quick").digest != identify(one, "other").digest
    assert identify(two, "quick").mtime_ns == 5
    assert (identify(one, "quick").size_bytes, identify(one, "quick").members) == (SIZE, 1)


def test_a_missing_slide_has_no_identity(tmp_path):
    with pytest.raises(SlideUnreadableError, match="cannot be read"):
        identify(tmp_path / "none.svs", "quick")


def mrxs(folder, name, files=("Slidedat.ini", "Index.dat", "Data0000.dat")):
    (folder / name).mkdir(parents=True)
    (folder / f"{name}.mrxs").write_bytes(b"mrxs")
    for file in files:
        (folder / name / file).write_bytes(file.encode())
    return folder / f"{name}.mrxs"


def test_an_mrxs_is_its_file_and_all_of_its_folder(tmp_path):
    slide = mrxs(tmp_path, "case")
    names = [file.relative_to(tmp_path).as_posix() for file in members(slide)]
    assert names == ["case.mrxs", "case/Data0000.dat", "case/Index.dat", "case/Slidedat.ini"]
    before = identify(slide, "quick")
    assert before.members == 4
    (tmp_path / "case" / "Data0000.dat").write_bytes(b"data0000.dat")
    assert identify(slide, "quick").digest != before.digest


def test_every_file_of_a_dicom_series_has_the_identity_of_the_slide(tmp_path):
    one, two = (write_header(tmp_path / name, "1.2.3") for name in ("a.dcm", "b.dcm"))
    other = write_header(tmp_path / "c.dcm", "1.2.34")
    assert members(one) == members(two) == [one, two]
    assert members(other) == [other]
    assert identify(one, "quick").digest == identify(two, "quick").digest != identify(other, "quick").digest


def test_the_real_dicom_files_are_one_slide(real_slides, tmp_path):
    for name in ("boxes_0.dcm", "boxes_1.dcm", "README.md"):
        shutil.copy(real_slides / name, tmp_path)
    found = find_slides([tmp_path])
    assert found.paths == (tmp_path / "boxes_0.dcm",)
    assert found.files == 2
    assert identify(tmp_path / "boxes_0.dcm", "q").digest == identify(tmp_path / "boxes_1.dcm", "q").digest


def test_a_folder_of_a_plain_slide_an_mrxs_and_a_series_is_three_slides_in_21_files(tmp_path):
    (tmp_path / "z.svs").write_bytes(b"svs")
    slide = mrxs(tmp_path / "deep" / "er", "m", [f"Data{i:04}.dat" for i in range(14)])
    for i in range(5):
        write_header(tmp_path / f"{i}.dcm", "1.2.3")
    found = find_slides([tmp_path])
    assert found.paths == (tmp_path / "0.dcm", slide, tmp_path / "z.svs")
    assert (len(found.paths), found.files) == (3, 1 + 15 + 5)


def test_hidden_files_pictures_and_other_files_are_no_slides(tmp_path):
    for name in (".a.svs", "._b.svs", "c.png", "d.jpg", "e.txt", "f.svs.part", "g.SVS"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "h.svs").write_bytes(b"x")
    (tmp_path / "i.svs").mkdir()
    assert find_slides([tmp_path]).paths == (tmp_path / "g.SVS",)


def test_slides_in_a_hidden_parent_folder_are_found_when_it_was_named(tmp_path):
    folder = tmp_path / ".cache"
    folder.mkdir()
    (folder / "a.svs").write_bytes(b"x")
    assert find_slides([folder]).paths == (folder / "a.svs",)


def test_what_lies_in_an_mrxs_folder_belongs_to_it_and_a_folder_of_a_like_name_does_not(tmp_path):
    slide = mrxs(tmp_path, "2024", ["Data0000.dat", "scan.tif"])
    (tmp_path / "2024.05").mkdir()
    (tmp_path / "2024.05" / "other.svs").write_bytes(b"x")
    assert find_slides([tmp_path]).paths == (tmp_path / "2024.05" / "other.svs", slide)


def test_the_current_folder_can_be_searched(tmp_path, monkeypatch):
    (tmp_path / "a.svs").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert find_slides([Path(".")]).paths == (Path("a.svs"),)


def test_paths_keep_their_order_and_are_named_once(tmp_path):
    one, two = tmp_path / "1.svs", tmp_path / "2.svs"
    one.write_bytes(b"x")
    two.write_bytes(b"x")
    assert find_slides([two, one, two]).paths == (two, one)
    assert find_slides([two, tmp_path]).paths == (two, one)


def test_a_folder_without_slides_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no slide"):
        find_slides([tmp_path])


@pytest.mark.parametrize("suffix", SLIDE_SUFFIXES)
def test_every_suffix_that_openslide_reads_is_looked_for(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    assert find_slides([tmp_path]).paths == (path,)


def test_files_of_one_series_are_one_slide_however_they_are_named(real_slides):
    series = [real_slides / "boxes_1.dcm", real_slides / "boxes_0.dcm"]
    found = find_slides([*series, real_slides / "cmu-1-small-region.svs"])
    assert found.paths == (series[0], real_slides / "cmu-1-small-region.svs")
    assert found.files == 3


def test_the_same_series_in_two_folders_is_two_slides(real_slides, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("boxes_0.dcm", "boxes_1.dcm"):
            (tmp_path / name / file).write_bytes((real_slides / file).read_bytes())
    assert len(find_slides([tmp_path]).paths) == 2
