"""What a DICOM file says about itself: its study and series, its kind, what it shows, and whether it has its end.

Pixels are not read. A file is DICOM by its content, whatever its name: archives store files without a suffix, and
scanners write .DCM.
"""

from __future__ import annotations

import math
import re
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

HEAD_BYTES = 132
"""So many bytes of a file show whether it is DICOM: 128 of any content, then DICM."""
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""The SOP class of whole-slide images: VL Whole Slide Microscopy Image Storage."""
STANDARD = "1.2.840.10008."
"""The beginning of the UIDs that the standard defines."""
FIRST_GROUPS = (b"\x02\0", b"\x08\0")
"""The groups of the first tag of a file, in little-endian: with a meta header, and without."""
DEFLATED = "1.2.840.10008.1.2.1.99"
"""The transfer syntax in which all tags are compressed together."""
IMAGE_TYPE, SOP_CLASS, INSTANCE, STUDY, SERIES = 0x00080008, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
PATIENT_ID, FRAME, CONTAINER, COLUMNS, ROWS = 0x00100020, 0x00200052, 0x00400512, 0x00480006, 0x00480007
OPTICAL_PATHS, ORGANIZATION, SHARED = 0x00480302, 0x00209311, 0x52009229
READ = [
    IMAGE_TYPE, SOP_CLASS, INSTANCE, STUDY, SERIES, PATIENT_ID, FRAME, CONTAINER, COLUMNS, ROWS, OPTICAL_PATHS,
    ORGANIZATION, SHARED,
]  # fmt: skip
PER_FRAME = 0x52009230
"""Per-frame Functional Groups Sequence: one item per tile, and nothing that is asked for comes after it."""
PIXELS = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
"""The length of an element that ends with a delimiter, such as compressed pixels."""
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
"""What each part of compressed pixels begins with, and what follows the last part."""
DAMAGED = (
    EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, NotImplementedError, RecursionError,
    struct.error, zlib.error,
)  # fmt: skip
"""What pydicom raises on damaged tags, beside its own two errors."""
PICTURES = {"LABEL": "a label", "OVERVIEW": "an overview", "LOCALIZER": "an overview", "THUMBNAIL": "a thumbnail"}
"""Pictures of a slide that are not the scan: the third value of ImageType, and how to name it."""


@dataclass(frozen=True)
class DicomFacts:
    """What is known about a DICOM file."""

    series: str | None
    """SeriesInstanceUID of the file itself, not of one that it refers to."""
    kind: str
    """SOPClassUID, such as WHOLE_SLIDE; empty if it is none."""
    shows: str
    """What a whole-slide image shows: VOLUME (the scan), LABEL, OVERVIEW, …: the third value of ImageType."""
    is_resampled: bool = False
    """Whether it was made from an image of higher resolution: the fourth value of ImageType."""
    instance: str = ""
    """SOPInstanceUID, which copies of a file share; empty if it is missing."""
    study: str = ""
    """StudyInstanceUID; empty if it is missing."""
    frame: str = ""
    """FrameOfReferenceUID: the coordinates of one scan; empty if it is missing."""
    patient_id: str = field(default="", repr=False)
    """PatientID; empty if it is missing. It is compared, and shown nowhere."""
    container: str = field(default="", repr=False)
    """ContainerIdentifier: the glass slide, often by its accession number. It is compared, and shown nowhere."""
    size_px: tuple[int, int] | None = None
    """Columns and rows of what a whole-slide image shows; None if they are not known."""
    width_mm: float | None = None
    """Width of what a whole-slide image shows; None if it is not known."""
    optical_paths: int = 1
    """Pictures of the same place in different light; OpenSlide reads the first."""
    is_placed: bool = True
    """Whether it is known where each tile is."""
    is_whole: bool = True
    """Whether the tags of a whole-slide image can be read and its pixels end inside the file."""
    syntax: str = ""
    """TransferSyntaxUID: how tags and pixels are encoded."""

    @property
    def is_volume(self) -> bool:
        """Whether a whole-slide image shows the scan."""
        return self.kind == WHOLE_SLIDE and self.shows not in PICTURES

    @property
    def kind_name(self) -> str:
        """The standard's name of the kind, such as "CT Image Storage"."""
        return uid_name(self.kind)


def uid_name(uid: str) -> str:
    """The standard's name of a UID; the UID itself if it has none."""
    from pydicom.uid import UID

    return UID(uid).name


def dicom_facts(path: Path) -> DicomFacts | None:
    """The facts of a DICOM file, as far as its tags can be read; None for another file, or one that cannot be read."""
    try:
        status = path.stat()
        return _facts(path, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None


def dicom_series(path: Path) -> tuple[str, str] | None:
    """The StudyInstanceUID and SeriesInstanceUID of a DICOM file; None for a file without a series."""
    facts = dicom_facts(path)
    return (facts.study, facts.series) if facts and facts.series else None


def begins_as_dicom(head: bytes) -> bool:
    """Whether the first HEAD_BYTES bytes of a file are those of a DICOM file."""
    return head[:HEAD_BYTES].endswith(b"DICM") and len(head) >= HEAD_BYTES


def lacks_preamble(path: Path) -> bool:
    """Whether a file has the tags of a DICOM file but begins with them."""
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.filereader import read_partial

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file.read(2) not in FIRST_GROUPS:
                return False
            file.seek(0)
            data = read_partial(file, lambda tag, *_: tag > SOP_CLASS, force=True)
            return str(data.get("SOPClassUID")).startswith(STANDARD)
    except (OSError, BytesLengthException, InvalidDicomError, *DAMAGED):
        return False


@lru_cache(maxsize=1 << 16)
def _facts(path: Path, mtime_ns: int, size: int) -> DicomFacts | None:
    """The facts, read once while the file stays the same: every file of a folder is asked for every slide."""
    with path.open("rb") as file, warnings.catch_warnings():
        if not begins_as_dicom(file.read(HEAD_BYTES)):
            return None
        from pydicom.errors import BytesLengthException, InvalidDicomError

        warnings.simplefilter("ignore")  # of values that break the standard, which does not help the user
        try:
            return _read_facts(file, size)
        except (BytesLengthException, InvalidDicomError, *DAMAGED):
            return DicomFacts(series=None, kind="", shows="", is_whole=False)


class _Element(NamedTuple):
    """Where an element of a DICOM file is."""

    tag: int = 0
    start: int = 0
    """Of its value."""
    length: int = 0


def _read_facts(file: BinaryIO, size: int) -> DicomFacts:
    """The facts in a file's tags. Raises one of DAMAGED."""
    data, last = _read_tags(file, size, PER_FRAME)
    syntax = str(data.file_meta.get("TransferSyntaxUID") or "")
    image_type = data.get("ImageType") or ""
    values = [] if isinstance(image_type, str) else [str(value).upper() for value in image_type]
    stated = str(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID"))
    kind = stated if last.tag and re.fullmatch(r"[\d.]{1,64}", stated) else ""  # it may be cut if no tag follows it
    is_other = kind not in (WHOLE_SLIDE, "")
    names = ("SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "ContainerIdentifier")
    instance, study, frame, patient_id, container = (str(data.get(name) or "").strip() for name in names)
    columns, rows = data.get("TotalPixelMatrixColumns"), data.get("TotalPixelMatrixRows")
    return DicomFacts(
        series=str(data.get("SeriesInstanceUID") or "") or None,
        kind=kind,
        shows=values[2] if len(values) > 2 else "",
        is_resampled="RESAMPLED" in values[3:],
        instance=instance,
        study=study,
        frame=frame,
        patient_id=patient_id,
        container=container,
        size_px=(int(columns), int(rows)) if columns and rows else None,
        width_mm=_width_mm(data),
        optical_paths=int(data.get("NumberOfOpticalPaths") or 1),
        is_placed=last.tag == PER_FRAME or data.get("DimensionOrganizationType") != "TILED_SPARSE",
        is_whole=is_other or syntax == DEFLATED or (last.tag >= PER_FRAME and _has_pixels(file, size)),
        syntax=syntax,
    )


def _read_tags(file: BinaryIO, size: int, until: int) -> tuple[FileDataset, _Element]:
    """The tags before `until`, or before one that is cut or damaged, and the last element that was met.

    Raises one of DAMAGED, or OSError.
    """
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.filereader import read_partial

    last = _Element()

    def read(until: int) -> FileDataset:
        def ends(tag: int, _vr: str | None, length: int) -> bool:
            nonlocal last
            last = _Element(int(tag), file.tell(), length)
            is_cut = length != UNDEFINED and last.start + length > size
            return last.tag >= until or (is_cut and not is_deflated)

        file.seek(0)
        return read_partial(file, ends, specific_tags=READ)

    file.seek(0)
    is_deflated = bool(read_partial(file, lambda *_: True).file_meta.get("TransferSyntaxUID") == DEFLATED)
    try:
        return read(until), last
    except (OSError, BytesLengthException, InvalidDicomError, *DAMAGED):  # inside the last element
        return read(last.tag), last


def _has_pixels(file: BinaryIO, size: int) -> bool:
    """Whether all pixel data are in the file."""
    file.seek(-len(END), 2)
    if file.read() == END:
        return True
    _, last = _read_tags(file, size, PIXELS)  # they are not compressed, or something follows them
    if last.tag != PIXELS or last.length != UNDEFINED:
        return last.tag == PIXELS and last.start + last.length <= size
    file.seek(last.start)
    while len(head := file.read(8)) == 8:
        if head[:4] != ITEM:
            return head[:4] == END[:4]
        file.seek(int.from_bytes(head[4:], "little"), 1)
    return False


def _width_mm(data: FileDataset) -> float | None:
    """The width of the scan; None if a tag of it is missing, or is no number."""
    try:
        spacing = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        width = float(spacing[1]) * int(data.TotalPixelMatrixColumns)
    except DAMAGED:
        return None
    return width if math.isfinite(width) and width > 0 else None
