"""The search for slides: links are followed, each file is found once, and what cannot be read is named."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from dicom_for_tests import write_ct, write_dicom, write_directory, write_header
from slides_for_tests import solid

from melanoma_infer.errors import SlideUnreadableError, UsageError
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.search import find_slides

NOBODY = 65534


@pytest.fixture
def store(tmp_path):
    """A folder of links, and what they lead to."""
    for folder in ("batch", "cohort"):
        (tmp_path / folder).mkdir()
    (tmp_path / "elsewhere.svs").write_bytes(b"x")
    (tmp_path / "batch" / "b.svs").write_bytes(b"y")
    return tmp_path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Rights hold in the block, which root's do not."""
    user = os.geteuid()
    import_module("melanoma_infer.slides.openslide_reader")  # the packages may not be readable either
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_linked_files_and_folders_are_searched(store):
    (store / "cohort" / "file.svs").symlink_to("../elsewhere.svs")
    (store / "cohort" / "folder").symlink_to("../batch")
    found = find_slides([store / "cohort"])
    assert found.paths == (store / "cohort" / "file.svs", store / "cohort" / "folder" / "b.svs")
    assert (found.files, found.unread) == (2, 0)


def test_links_to_parents_and_to_themselves_end(store):
    (store / "batch" / "up").symlink_to("..")
    (store / "batch" / "here").symlink_to(".")
    (store / "cohort" / "batch").symlink_to("../batch")
    found = find_slides([store])
    assert {path.name for path in found.paths} == {"b.svs", "elsewhere.svs"}
    (store / "itself.svs").symlink_to("itself.svs")
    assert find_slides([store]).paths == (*found.paths, store / "itself.svs")


def test_a_file_reached_twice_is_one_slide(store):
    (store / "cohort" / "again.svs").symlink_to("../elsewhere.svs")
    (store / "cohort" / "batch").symlink_to("../batch")
    assert len(find_slides([store]).paths) == 2
    named = [store / "cohort" / "again.svs", store / "elsewhere.svs", store / "cohort" / ".." / "elsewhere.svs"]
    assert find_slides(named).paths == (named[0],)
    assert len(find_slides([store / "batch", store / "cohort" / "batch"]).paths) == 1


def test_a_dicom_series_reached_through_links_is_one_slide(store):
    for name in ("1.dcm", "2.dcm"):
        write_header(store / "batch" / name, "1.2.3")
        (store / "cohort" / f"link-{name}").symlink_to(store / "batch" / name)
    found = find_slides([store / "cohort", store / "batch"])
    assert found.paths == (store / "cohort" / "link-1.dcm", store / "batch" / "b.svs")
    assert found.files == 3


def test_two_studies_with_one_series_uid_are_two_slides(tmp_path):
    for name, study in (("a", "1.7"), ("b", "1.8"), ("c", "1.8")):
        write_dicom(tmp_path / name, solid(256, 256), series="1.2.3", study=study)
    assert find_slides([tmp_path]).paths == (tmp_path / "a", tmp_path / "b")


def test_a_link_that_leads_nowhere_is_found_and_opening_it_says_so(store):
    (store / "batch" / "gone.svs").symlink_to("/nonexistent/gone.svs")
    (store / "batch" / "share").symlink_to("/nonexistent/share")
    found = find_slides([store / "batch"])
    assert [path.name for path in found.paths] == ["b.svs", "gone.svs", "share"]
    assert (found.files, found.unread) == (1, 2)
    for path in found.paths[1:]:
        with pytest.raises(SlideUnreadableError, match="link leads to no file"):
            open_slide(path)


def test_dicom_slides_are_found_by_content_and_other_files_are_not(tmp_path):
    write_header(tmp_path / "I0001", "1.2.3")
    write_header(tmp_path / "I0002", "1.2.3")
    write_header(tmp_path / "1.2.840.7", "1.2.4")
    write_header(tmp_path / "UPPER.DCM", "1.2.5")
    write_ct(tmp_path / "I0003")
    write_directory(tmp_path / "DICOMDIR")
    (tmp_path / "notes.txt").write_text("x" * 500)
    os.mkfifo(tmp_path / "pipe.svs")
    found = find_slides([tmp_path])
    assert [path.name for path in found.paths] == ["1.2.840.7", "I0001", "UPPER.DCM"]
    assert found.files == 4
    assert [path.name for path in found.skipped] == ["DICOMDIR", "I0003"]


def test_dicom_of_other_kinds_in_a_folder_is_skipped_under_any_name_unless_it_was_named(tmp_path):
    write_header(tmp_path / "slide.dcm", "1.2.3")
    ct = write_ct(tmp_path / "ct.dcm")
    found = find_slides([tmp_path])
    assert (found.paths, found.skipped) == ((tmp_path / "slide.dcm",), (ct,))
    assert find_slides([ct]).paths == (ct,)
    assert find_slides([tmp_path, ct]).paths == (tmp_path / "slide.dcm", ct)
    (tmp_path / "slide.dcm").unlink()
    with pytest.raises(UsageError, match=r"holds no slide .*, only DICOM files of other kinds\. Give"):
        find_slides([tmp_path])


@pytest.mark.parametrize(("mode", "what"), [(0o000, "folder"), (0o444, "folder"), (0o000, "file")])
def test_what_may_not_be_read_is_found_and_opening_it_says_so(open_folder, mode, what):
    (open_folder / "good.svs").write_bytes(b"x")
    closed = open_folder / "closed"
    closed.mkdir() if what == "folder" else closed.write_bytes(b"x")
    if what == "folder":
        (closed / "in.svs").write_bytes(b"x")
    closed.chmod(mode)
    with ordinary_user():
        found = find_slides([open_folder])
        assert found.paths == (closed, open_folder / "good.svs")
        assert find_slides([closed, open_folder / "good.svs"]).paths == found.paths
        assert find_slides([closed / "in.svs"]).paths == (closed / "in.svs",)
        for path in (closed, closed / "in.svs"):
            with pytest.raises(SlideUnreadableError, match=r"Permission denied|Not a directory"):
                open_slide(path)


def test_a_mirax_folder_that_may_not_be_read_is_not_called_missing(open_folder):
    (open_folder / "m.mrxs").write_bytes(b"x")
    (open_folder / "m").mkdir()
    (open_folder / "m" / "Slidedat.ini").write_bytes(b"")
    (open_folder / "m").chmod(0o000)
    with ordinary_user():
        assert find_slides([open_folder]).paths == (open_folder / "m.mrxs",)
        with pytest.raises(SlideUnreadableError, match="Permission denied"):
            open_slide(open_folder / "m.mrxs")
