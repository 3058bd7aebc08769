"""What a DICOM file says about itself: its series, its kind and what it shows. Its pixels are not read.

A file is DICOM by its content, whatever its name: archives store files without a suffix, and scanners write .DCM.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

HEAD_BYTES = 132
"""So many bytes of a file show whether it is DICOM: 128 of any content, then DICM."""
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""The SOP class of whole-slide images: VL Whole Slide Microscopy Image Storage."""
IMAGE_TYPE, SOP_CLASS, SERIES = 0x00080008, 0x00080016, 0x0020000E
PER_FRAME = 0x52009230
"""Per-frame Functional Groups Sequence: one item per tile, and nothing that is asked for comes after it."""
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


def dicom_series(path: Path) -> str | None:
    """The SeriesInstanceUID of a DICOM file; None for another file."""
    facts = dicom_facts(path)
    return facts.series if facts else None


def series_files(path: Path) -> list[Path]:
    """The files of a DICOM file's series in its folder, sorted: itself alone if it has no series."""
    series, folder = dicom_series(path), path.parent
    if series is None:
        return [path]
    try:
        return sorted(folder / name for name in os.listdir(folder) if dicom_series(folder / name) == series)
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

        file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of values that break the standard, which does not help the user
                data = read_partial(
                    file, lambda tag, *_: int(tag) >= PER_FRAME, specific_tags=[IMAGE_TYPE, SOP_CLASS, SERIES]
                )
                image_type = data.get("ImageType") or ""
                series = data.get("SeriesInstanceUID")
                kind = data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID")
        except (BytesLengthException, InvalidDicomError, *DAMAGED):
            return None
    shows = "" if isinstance(image_type, str) or len(image_type) < 3 else str(image_type[2])
    kind = str(kind) if re.fullmatch(r"[\d.]{1,64}", str(kind)) else ""
    return DicomFacts(str(series) if series else None, kind, shows.upper())
