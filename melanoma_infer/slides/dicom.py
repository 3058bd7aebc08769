"""What a DICOM file says about itself: its study and series, its kind and what it shows. Its pixels are not read.

A file is DICOM by its content, whatever its name: archives store files without a suffix, and scanners write .DCM.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

HEAD_BYTES = 132
"""So many bytes of a file show whether it is DICOM: 128 of any content, then DICM."""
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""The SOP class of whole-slide images: VL Whole Slide Microscopy Image Storage."""
IMAGE_TYPE, SOP_CLASS, STUDY, SERIES = 0x00080008, 0x00080016, 0x0020000D, 0x0020000E
PATIENT_ID, CONTAINER = 0x00100020, 0x00400512
COLUMNS, OPTICAL_PATHS, ORGANIZATION, SHARED = 0x00480006, 0x00480302, 0x00209311, 0x52009229
READ = [IMAGE_TYPE, SOP_CLASS, STUDY, SERIES, PATIENT_ID, CONTAINER, COLUMNS, OPTICAL_PATHS, ORGANIZATION, SHARED]
PER_FRAME = 0x52009230
"""Per-frame Functional Groups Sequence: one item per tile, and nothing that is asked for comes after it."""
DAMAGED = (
    EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, NotImplementedError, RecursionError,
    struct.error, zlib.error,
)  # fmt: skip
"""What pydicom raises on damaged tags, beside its own two errors."""
PICTURES = {"LABEL": "a label", "OVERVIEW": "an overview", "LOCALIZER": "an overview", "THUMBNAIL": "a thumbnail"}
"""Pictures of a slide that are not the scan: the third value of ImageType, and how to name it."""

WIDTH_TOLERANCE = 0.1
"""Levels of one slide are equally wide in mm but for rounding to pixels and cropped edges."""


@dataclass(frozen=True)
class DicomFacts:
    """What is known about a DICOM file."""

    series: str | None
    """SeriesInstanceUID of the file itself, not of one that it refers to."""
    kind: str
    """SOPClassUID, such as WHOLE_SLIDE; empty if it is none."""
    shows: str
    """What a whole-slide image shows: VOLUME (the scan), LABEL, OVERVIEW, …: the third value of ImageType."""
    study: str = ""
    """StudyInstanceUID; empty if it is missing."""
    patient_id: str = field(default="", repr=False)
    """PatientID; empty if it is missing. It is compared, and shown nowhere."""
    container: str = field(default="", repr=False)
    """ContainerIdentifier: the glass slide, often by its accession number. It is compared, and shown nowhere."""
    width_mm: float | None = None
    """Width of what a whole-slide image shows; None if it is not known."""
    optical_paths: int = 1
    """Pictures of the same place in different light; OpenSlide reads the first."""
    is_placed: bool = True
    """Whether it is known where each tile is."""

    @property
    def kind_name(self) -> str:
        """The standard's name of the kind, such as "CT Image Storage"."""
        from pydicom.uid import UID

        return UID(self.kind).name


def dicom_facts(path: Path) -> DicomFacts | None:
    """The facts of a DICOM file; None for another file, or one whose tags cannot be read."""
    try:
        status = path.stat()
        return _facts(path, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None


def dicom_series(path: Path) -> tuple[str, str] | None:
    """The StudyInstanceUID and SeriesInstanceUID of a DICOM file; None for a file without a series."""
    facts = dicom_facts(path)
    return (facts.study, facts.series) if facts and facts.series else None


def series_files(path: Path) -> list[Path]:
    """The files of a DICOM file's study and series in its folder, sorted: itself alone if it has no series."""
    own = dicom_series(path)
    return [file for file in _of_series_uid(path) if dicom_series(file) == own]


def require_one_slide(path: Path) -> None:
    """Require that the files which OpenSlide reads together with a DICOM file are of the same slide.

    OpenSlide takes all whole-slide images of the folder with the file's SeriesInstanceUID as levels of one slide,
    whatever their study and patient. Files that name no patient or container (anonymised ones) contradict no other.
    FrameOfReferenceUID is not compared: some writers give each level its own.

    Raises:
        SlideUnreadableError: two of them name different studies, patients or containers, or are not equally wide; or
            one does not say where its tiles are.
        SlideFormatError: one shows the slide in several kinds of light.
    """
    own = dicom_facts(path)
    if own is None or own.kind != WHOLE_SLIDE:
        return
    read = [
        (file, facts) for file in _of_series_uid(path) if (facts := dicom_facts(file)) and facts.kind == WHOLE_SLIDE
    ]
    read.sort(key=lambda each: each[0] != path)  # the file itself comes first
    for (one, facts), (other, others) in combinations(read, 2):  # all pairs: the file itself may name no patient
        if differs := _contradiction(facts, others):
            first = "This file" if one == path else one.name
            raise SlideUnreadableError(
                f"{first} and {other.name} have the same SeriesInstanceUID but a different {differs}: they are not "
                "of one slide, and reading them together would mix their pixels. Put the files of each slide into a "
                "folder of their own.",
                names=(other.name,) if one == path else (one.name, other.name),
            )
    for file, facts in read:
        _require_readable(file, facts)


def _require_readable(file: Path, facts: DicomFacts) -> None:
    """Raise SlideUnreadableError or SlideFormatError for an image that OpenSlide would crash on or read in part."""
    if not facts.is_placed:
        raise SlideUnreadableError(
            f"{file.name} does not say where its tiles are (TILED_SPARSE without positions). Export it again.",
            names=(file.name,),
        )
    if facts.optical_paths > 1 and facts.shows not in PICTURES:
        raise SlideFormatError(
            f"{file.name} has {facts.optical_paths} optical paths, such as colours of fluorescence, and only one could "
            "be read. Export the slide with one optical path, in RGB.",
            names=(file.name,),
        )


def _contradiction(one: DicomFacts, other: DicomFacts) -> str | None:
    """The tag that shows that two files are not of one slide; None if they may be."""
    if one.study != other.study:
        return "StudyInstanceUID"
    if one.patient_id != other.patient_id and one.patient_id and other.patient_id:
        return "PatientID"
    if one.container != other.container and one.container and other.container:
        return "ContainerIdentifier"
    widths = [facts.width_mm for facts in (one, other) if facts.width_mm and facts.shows not in PICTURES]
    if len(widths) == 2 and max(widths) > min(widths) * (1 + WIDTH_TOLERANCE):
        return "width in mm"
    return None


def _of_series_uid(path: Path) -> list[Path]:
    """The files of a DICOM file's folder with its SeriesInstanceUID, sorted: itself alone if it has none."""
    own, folder = dicom_series(path), path.parent
    if own is None:
        return [path]
    try:
        found = ((folder / name, dicom_series(folder / name)) for name in os.listdir(folder))
        return sorted(file for file, series in found if series and series[1] == own[1])
    except OSError:  # the folder may be entered but not listed
        return [path]


def begins_as_dicom(head: bytes) -> bool:
    """Whether the first HEAD_BYTES bytes of a file are those of a DICOM file."""
    return head[:HEAD_BYTES].endswith(b"DICM") and len(head) >= HEAD_BYTES


@lru_cache(maxsize=1 << 16)
def _facts(path: Path, mtime_ns: int, size: int) -> DicomFacts | None:
    """The facts, read once while the file stays the same: every file of a folder is asked for every slide."""
    with path.open("rb") as file:
        if not begins_as_dicom(file.read(HEAD_BYTES)):
            return None
        from pydicom.errors import BytesLengthException, InvalidDicomError
        from pydicom.filereader import read_partial

        last: list[int] = []

        def ends(tag: int, *_: object) -> bool:
            last[:] = [int(tag)]
            return int(tag) >= PER_FRAME

        file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of values that break the standard, which does not help the user
                return _read_facts(read_partial(file, ends, specific_tags=READ), has_positions=PER_FRAME in last)
        except (BytesLengthException, InvalidDicomError, *DAMAGED):
            return None


def _read_facts(data: FileDataset, *, has_positions: bool) -> DicomFacts:
    """The facts in a file's tags. Raises one of DAMAGED."""
    image_type = data.get("ImageType") or ""
    kind = str(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID"))
    names = ("StudyInstanceUID", "PatientID", "ContainerIdentifier")
    study, patient_id, container = (str(data.get(name) or "").strip() for name in names)
    return DicomFacts(
        series=str(data.get("SeriesInstanceUID") or "") or None,
        kind=kind if re.fullmatch(r"[\d.]{1,64}", kind) else "",
        shows="" if isinstance(image_type, str) or len(image_type) < 3 else str(image_type[2]).upper(),
        study=study,
        patient_id=patient_id,
        container=container,
        width_mm=_width_mm(data),
        optical_paths=int(data.get("NumberOfOpticalPaths") or 1),
        is_placed=has_positions or data.get("DimensionOrganizationType") != "TILED_SPARSE",
    )


def _width_mm(data: FileDataset) -> float | None:
    """The width of the scan; None if a tag of it is missing, or is no number."""
    try:
        spacing = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        width = float(spacing[1]) * int(data.TotalPixelMatrixColumns)
    except DAMAGED:
        return None
    return width if math.isfinite(width) and width > 0 else None
