"""Formats of several files: what is missing is named, and links lead to what belongs together."""

import shutil
from pathlib import Path

import pytest
from slides_for_tests import encoded, solid

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.companions import require_companions
from melanoma_infer.slides.members import members

SLIDEDAT = """\ufeff[GENERAL]
SLIDE_ID = x
[HIERARCHICAL]
INDEXFILE = Index.dat
[DATAFILE]
FILE_COUNT = 2
FILE_0 = Data0000.dat
FILE_1 = Data0001.dat
"""
KEY_FILE = """[Virtual Microscope Specimen]
NoLayers=1
NoJpegColumns=2
ImageFile=scan.jpg
ImageFile(1,0)=scan(1,0).jpg
MapFile=map2.jpg
OptimisationFile=scan.opt
"""


def mirax(folder: Path, name: str) -> Path:
    """The files of a MIRAX slide, without pixels."""
    (folder / name).mkdir(parents=True)
    (folder / name / "Slidedat.ini").write_text(SLIDEDAT, encoding="utf-8")
    for file in ("Index.dat", "Data0000.dat", "Data0001.dat"):
        (folder / name / file).write_bytes(b"x")
    (folder / f"{name}.mrxs").write_bytes(encoded(solid(20, 20), "JPEG"))
    return folder / f"{name}.mrxs"


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("", "The folder case/ is missing"),
        ("Slidedat.ini", "The file Slidedat.ini in the folder case/ is missing"),
        ("Index.dat", "The file Index.dat in the folder case/ is missing"),
        ("Data0001.dat", "The file Data0001.dat in the folder case/ is missing"),
    ],
)
def test_what_is_missing_of_a_mirax_slide_is_named(tmp_path, gone, named):
    slide = mirax(tmp_path, "case")
    shutil.rmtree(tmp_path / "case") if not gone else (tmp_path / "case" / gone).unlink()
    with pytest.raises(SlideUnreadableError, match=named):
        open_slide(slide)


@pytest.mark.parametrize("gone", ["scan.jpg", "scan(1,0).jpg", "map2.jpg"])
def test_what_is_missing_of_a_key_file_is_named(tmp_path, gone):
    for name in ("scan.jpg", "scan(1,0).jpg", "map2.jpg"):
        (tmp_path / name).write_bytes(b"x")
    slide = tmp_path / "slide.VMS"
    slide.write_text(KEY_FILE)
    require_companions(slide)  # the optimisation file may be missing
    assert [file.name for file in members(slide)] == ["slide.VMS", "map2.jpg", "scan(1,0).jpg", "scan.jpg"]
    (tmp_path / gone).unlink()
    with pytest.raises(SlideUnreadableError) as caught:
        open_slide(slide)
    assert f"The file {gone} is missing" in str(caught.value)
    assert gone in caught.value.names


def test_a_link_to_a_mirax_file_alone_leads_to_its_folder(tmp_path):
    slide = mirax(tmp_path / "store", "case")
    link = tmp_path / "link.mrxs"
    link.symlink_to(slide)
    assert members(link) == members(slide)
    assert len(members(link)) == 5
    (tmp_path / "link").symlink_to(tmp_path / "store" / "case")
    assert members(link)[0] == link


def test_a_mirax_name_in_capitals_is_refused_with_the_name_to_give(tmp_path):
    slide = mirax(tmp_path, "case")
    with pytest.raises(SlideFormatError, match=r"ends in \.mrxs\. Rename"):
        open_slide(slide.rename(slide.with_suffix(".MRXS")))
