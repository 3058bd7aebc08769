"""Whatever the file holds, opening it gives a slide or an error of ours that says what to do."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from dicom_for_tests import with_tags, write_ct, write_dicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless
from slides_for_tests import encoded, noise, smooth, solid, write_image, write_svs, write_tiff

from melanoma_infer.errors import MminferError, SlideFormatError, SlideUnreadableError, TransientIOError
from melanoma_infer.slides import open_slide

RANDOM = np.random.default_rng(0).bytes(5000)
PNG = encoded(smooth(90, 70), "PNG")
HOSTILE = {
    "empty.svs": (b"", SlideFormatError),
    "empty.png": (b"", SlideFormatError),
    "text.svs": (b"this is a text file\n" * 50, SlideFormatError),
    "random.svs": (RANDOM, SlideFormatError),
    "random.png": (RANDOM, SlideFormatError),
    "random.dcm": (RANDOM, SlideFormatError),
    "random.unknown": (RANDOM, SlideFormatError),
    "magic.svs": (b"II*\0" + RANDOM, SlideUnreadableError),
    "magic.ndpi": (b"MM\0*" + RANDOM, SlideUnreadableError),
    "bigmagic.svs": (b"II+\0\x08\0\0\0" + RANDOM, SlideUnreadableError),
    "magic.tif": (b"II*\0" + RANDOM, (SlideUnreadableError, SlideFormatError)),
    "magic-only.svs": (b"II*\0", SlideUnreadableError),
    "magic.czi": (b"ZISRAWFILE" + RANDOM, SlideUnreadableError),
    "magic.dcm": (bytes(128) + b"DICM" + RANDOM, SlideUnreadableError),
    "truncated.png": (PNG[: len(PNG) // 2], SlideUnreadableError),
    "signature.png": (PNG[:12], (SlideUnreadableError, SlideFormatError)),
    "deep.png": (encoded(noise(9, 9)[..., 0].astype(np.uint16) * 200, "PNG"), SlideFormatError),
    "zip.svs": (b"PK\x03\x04" + RANDOM, SlideFormatError),
    "script.svs": (b"#!/bin/sh\nexit 1\n", SlideFormatError),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name_of_what_is_wrong(tmp_path, name):
    content, expected = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(expected) as caught:
        open_slide(path)
    assert isinstance(caught.value, MminferError)
    assert caught.value.exit_code in (10, 11)
    assert str(tmp_path) not in str(caught.value)
    assert path.stem not in str(caught.value)


@pytest.mark.parametrize("suffix", [".svs", ".png", ".mrxs", ""])
def test_a_missing_file_and_a_folder_are_unreadable(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    for name in (f"missing{suffix}", f"folder{suffix}"):
        with pytest.raises(SlideUnreadableError, match="Check that it exists"):
            open_slide(tmp_path / name)


@pytest.mark.parametrize(("shows", "named"), [("LABEL", "a label"), ("OVERVIEW", "an overview")])
def test_a_dicom_series_without_a_slide_image_is_no_damaged_one(tmp_path, shows, named):
    write_dicom(tmp_path / "a", solid(256, 256), series="1.2.3", shows=shows)
    with pytest.raises(SlideFormatError, match=f"holds {named} but no slide image"):
        open_slide(tmp_path / "a")
    write_dicom(tmp_path / "b", smooth(512, 256), series="1.2.3")
    with open_slide(tmp_path / "a") as slide:
        assert (slide.facts.vendor, slide.facts.size_l0.width) == ("dicom", 512)


def test_a_dicom_file_of_another_kind_is_named(tmp_path):
    with pytest.raises(SlideFormatError, match="CT Image Storage"):
        open_slide(write_ct(tmp_path / "a.dcm"))


def test_a_damaged_dicom_slide_is_unreadable(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", noise(512, 256), series="1.2.3")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(SlideUnreadableError, match="damaged or incomplete"):
        open_slide(path)


def test_a_whole_tiff_in_an_encoding_that_openslide_lacks_is_no_damaged_one(tmp_path):
    path = tmp_path / "s.tif"
    tile = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, noise(512, 256), compression="lzma", **tile)
    with pytest.raises(SlideFormatError, match=r"its compression is LZMA \(TIFF compression 34925\)"):
        open_slide(path)


def test_a_whole_tiff_that_is_no_slide_and_a_cut_one_are_told_apart(tmp_path):
    whole = tmp_path / "whole.svs"
    tifffile.imwrite(whole, noise(300, 200), photometric="rgb", rowsperstrip=16, metadata=None)
    with pytest.raises(SlideFormatError, match="TIFF, but of no kind of slide"):
        open_slide(whole)
    for suffix in (".svs", ".tif"):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(whole.read_bytes()[:9000])
        with pytest.raises(SlideUnreadableError, match="damaged or incomplete"):
            open_slide(cut)


@pytest.mark.parametrize("share", [0.0002, 0.01, 0.5, 0.9])
def test_a_truncated_svs_is_unreadable(tmp_path, share):
    whole = write_svs(tmp_path / "whole.svs", noise(700, 500), levels=2).read_bytes()
    path = tmp_path / "s.svs"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SlideUnreadableError, match="damaged or incomplete"):
        open_slide(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.97])
def test_a_truncated_real_slide_opens_as_none(tmp_path, cmu, share):
    whole = cmu.read_bytes()
    path = tmp_path / "s.svs"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SlideUnreadableError):
        open_slide(path)


def test_a_tiff_without_any_tile_is_incomplete_not_blank(tmp_path):
    path = write_tiff(tmp_path / "s.tif", noise(700, 500), compression="jpeg")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("TileOffsets", "TileByteCounts"):
            tiff.pages[0].tags[tag].overwrite([0] * len(tiff.pages[0].dataoffsets))
    with pytest.raises(SlideUnreadableError, match="is incomplete"):
        open_slide(path)


@pytest.mark.parametrize("code", [errno.EIO, errno.ETIMEDOUT, errno.ESTALE])
def test_a_failing_share_is_transient_and_says_to_try_again(tmp_path, monkeypatch, code):
    path = write_image(tmp_path / "image.png", solid(20, 20))

    def fails(self, *_args, **_kwargs):
        raise OSError(code, "the share is gone", str(self))

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(TransientIOError, match="Run the same command again") as caught:
        open_slide(path)
    assert caught.value.exit_code == 104
    assert "image" not in str(caught.value)


def test_each_file_is_opened_by_the_first_reader_that_knows_it(tmp_path):
    rgb = noise(300, 280)
    slides = {
        "openslide": [write_tiff(tmp_path / "t.tif", rgb), write_svs(tmp_path / "s.svs", rgb)],
        "image": [write_image(tmp_path / "i.tif", rgb), write_image(tmp_path / "i.PNG", rgb)],
    }
    for reader, paths in slides.items():
        for path in paths:
            with open_slide(path) as slide:
                assert slide.facts.reader == reader
                assert slide.facts.size_l0.width == 300


def test_a_slide_whose_name_lies_about_its_format_is_read_by_its_content(tmp_path):
    source = write_svs(tmp_path / "s.svs", noise(300, 280))
    with open_slide(shutil.copy(source, tmp_path / "renamed.png")) as slide:
        assert slide.facts.vendor == "aperio"


FLIP_BYTES = """
import sys
from pathlib import Path
import numpy as np
from melanoma_infer.errors import MminferError
from melanoma_infer.geometry import RectPx
from melanoma_infer.slides import open_slide

path, rng, opened, refused = Path(sys.argv[1]), np.random.default_rng(4), 0, 0
whole = path.read_bytes()
for _ in range(150):
    content = bytearray(whole)
    for _ in range(2):
        content[rng.integers(4, 330)] = rng.integers(0, 256)
    path.write_bytes(content)
    try:
        with open_slide(path) as reader:
            region = reader.read_rgb(0, RectPx(0, 0, 16, 16).within(reader.facts.size_l0))
            assert region is None or region.pixels.dtype == np.uint8
            opened += 1
    except MminferError:
        refused += 1
print(opened, refused)
"""


def test_bytes_flipped_in_a_header_give_a_slide_or_an_error_of_ours(tmp_path):
    """In a child process, because OpenSlide aborts where a header asks for more memory than there is."""
    path = write_tiff(tmp_path / "s.tif", smooth(64, 64), tile=16)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-W", "error", "-c", FLIP_BYTES, str(path)]
    child = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    opened, refused = map(int, child.stdout.split())
    assert min(opened, refused) > 20


@pytest.mark.parametrize(
    ("tags", "kind", "named"),
    [
        ({"NumberOfOpticalPaths": 2}, SlideFormatError, "2 optical paths"),
        ({"TotalPixelMatrixFocalPlanes": 3}, SlideFormatError, "TotalPixelMatrixFocalPlanes 1, and this one has 3"),
        ({"BitsAllocated": 16}, SlideFormatError, "BitsAllocated 8, and this one has 16"),
        ({"SamplesPerPixel": 1}, SlideFormatError, "SamplesPerPixel 3, and this one has 1"),
        ({"DimensionOrganizationType": "TILED_SPARSE"}, SlideUnreadableError, "TILED_SPARSE without positions"),
    ],
)
def test_a_dicom_slide_that_openslide_lacks_is_refused_by_the_tag(tmp_path, tags, kind, named):
    with pytest.raises(kind, match=named):
        open_slide(with_tags(write_dicom(tmp_path / "a", smooth(512, 256), series="1.2.3"), **tags))


def test_two_images_of_one_size_in_a_series_are_not_called_damaged(tmp_path):
    path = write_dicom(tmp_path / "a", smooth(512, 256), series="1.2.3")
    write_dicom(tmp_path / "b", smooth(512, 256, 1), series="1.2.3")
    with pytest.raises(SlideFormatError, match="an image of the same size"):
        open_slide(path)


@pytest.mark.parametrize(
    ("syntax", "named"),
    [(DeflatedExplicitVRLittleEndian, "Deflated Explicit VR Little Endian"), (JPEGLSLossless, "JPEG-LS Lossless")],
)
def test_a_dicom_slide_in_a_transfer_syntax_that_openslide_lacks_is_no_damaged_one(tmp_path, syntax, named):
    path = write_dicom(tmp_path / "a", smooth(512, 256), series="1.2.3")
    data = pydicom.dcmread(path)
    if syntax == DeflatedExplicitVRLittleEndian:
        data.decompress()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)
    with pytest.raises(SlideFormatError, match=f"transfer syntax {named}"):
        open_slide(path)


@pytest.mark.parametrize("first", [b"\2\0\0\0UL", b"\x08\0\x08\0CS"])
def test_a_dicom_file_without_its_first_bytes_is_called_one(tmp_path, first):
    path = write_dicom(tmp_path / "a.dcm", smooth(512, 256), series="1.2.3")
    path.write_bytes(path.read_bytes()[path.read_bytes().index(first) :])
    with pytest.raises(SlideFormatError, match="tags of a DICOM file but not its beginning"):
        open_slide(path)
    path.write_bytes(b"\2\0" + b"no DICOM at all" * 30)
    with pytest.raises(SlideFormatError, match="No reader knows this format"):
        open_slide(path)
