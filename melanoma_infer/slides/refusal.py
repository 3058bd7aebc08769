"""Why a file cannot be opened as a slide: unsupported (11), or damaged (10). The one place that tells them apart.

A missing part is found before a file is opened (`companions.py`), and an unfinished copy after it (`completeness.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from melanoma_infer.errors import MminferError, SlideFormatError, SlideUnreadableError
from melanoma_infer.runtime.privacy import without_paths
from melanoma_infer.slides.companions import MIRAX
from melanoma_infer.slides.completeness import COPY_AGAIN, TIFF_MAGIC, is_whole_tiff
from melanoma_infer.slides.dicom import (
    DEFLATED,
    HEAD_BYTES,
    PICTURES,
    WHOLE_SLIDE,
    DicomFacts,
    begins_as_dicom,
    dicom_facts,
    lacks_preamble,
    uid_name,
)
from melanoma_infer.slides.series import series_files
from melanoma_infer.slides.suffixes import IMAGE_SUFFIXES, SLIDE_SUFFIXES
from melanoma_infer.slides.tiff_pages import CONVERT, compression_name

CZI_MAGIC = b"ZISRAWFILE"
BIG_ENDIAN_BIGTIFF = b"MM\0+"
"""OpenSlide opens it only if it is tiled, and Pillow not at all: old versions take it for another TIFF."""
_UNSUPPORTED = re.compile(r"unsupported|not supported|unrecogni[sz]ed|cannot recogni[sz]e|unknown compression", re.I)
"""In OpenSlide's messages about whole files that it cannot decode."""
_COMPRESSION = re.compile(r"TIFF compression: (\d+)")
_ATTRIBUTE = re.compile(r"Attribute (\w{1,64}) value (\S{1,64}) != (\S{1,64})")
_NO_TAG = re.compile(r"(\w{1,64}) not found|get image flavor")
_SYNTAX = re.compile(r"Unsupported transfer syntax ([\d.]{1,64})")
_SAME_LEVEL = "Slide contains unexpected image"
_CONCATENATION = "in concatenation"
"""In OpenSlide's messages about DICOM series."""


def refusal(path: Path, said: str = "") -> MminferError:
    """The error to raise for a file that no reader can open.

    Args:
        path: the file.
        said: OpenSlide's message; empty if it does not recognise the file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        head = b""
    if begins_as_dicom(head):
        facts = dicom_facts(path)
        why = _no_slide_in(facts, series_files(path))
        if why is not None:
            return SlideFormatError(why)
        if (unread := _unread_dicom(said, facts)) is not None:
            return unread
    if _UNSUPPORTED.search(said):
        encoding = without_paths(said, path).rstrip(".")
        if number := _COMPRESSION.search(encoding):
            encoding = f"its compression is {compression_name(int(number[1]))} (TIFF compression {number[1]})"
        return SlideFormatError(f"OpenSlide cannot decode the slide: {encoding}. {CONVERT}")
    if said:
        return SlideUnreadableError(
            f"OpenSlide knows the format but cannot open the file: it is damaged or incomplete. {COPY_AGAIN}"
        )
    if path.suffix.lower() == MIRAX != path.suffix:
        return SlideFormatError(f"OpenSlide opens this format only under a name that ends in {MIRAX}. Rename the file.")
    if head.startswith(TIFF_MAGIC) and is_whole_tiff(path):
        if head.startswith(BIG_ENDIAN_BIGTIFF):
            return SlideFormatError(f"The file is a BigTIFF in big-endian byte order without tiles. {CONVERT}")
        return SlideFormatError(f"The file is a TIFF, but of no kind of slide that OpenSlide knows. {CONVERT}")
    if head.startswith((*TIFF_MAGIC, CZI_MAGIC)) or begins_as_dicom(head):
        return SlideUnreadableError(
            f"The file begins like a slide, but its structure cannot be read: it is damaged or incomplete. {COPY_AGAIN}"
        )
    if lacks_preamble(path):
        return SlideFormatError(
            "The file has the tags of a DICOM file but not its beginning (128 bytes, then DICM). Export it again as a "
            "DICOM file."
        )
    return SlideFormatError(
        f"No reader knows this format. Slides that OpenSlide reads ({', '.join(SLIDE_SUFFIXES)}) and plain images "
        f"({', '.join(IMAGE_SUFFIXES)}) can be scored; convert others to a pyramidal TIFF."
    )


def _unread_dicom(said: str, facts: DicomFacts | None) -> MminferError | None:
    """The error to raise for what OpenSlide says of a DICOM series; None if no cause is known."""
    syntax = _SYNTAX.search(said)
    if syntax or (facts and facts.syntax == DEFLATED):
        return SlideFormatError(
            f"OpenSlide reads no DICOM slides in the transfer syntax {uid_name(syntax[1] if syntax else DEFLATED)}. "
            "Export the slide in another one, such as JPEG Baseline."
        )
    if tag := _NO_TAG.search(said):
        return SlideFormatError(
            f"The DICOM file has no {tag[1] or 'ImageType'}, without which a slide cannot be read. Export it again."
        )
    if value := _ATTRIBUTE.search(said):
        return SlideFormatError(
            f"OpenSlide reads DICOM slides only with {value[1]} {value[3]}, and this one has {value[2]}. "
            "Export it as 8-bit RGB with one focal plane."
        )
    if _SAME_LEVEL in said:
        return SlideFormatError(
            "Two files of the DICOM series hold an image of the same size: they may be two slides, or two scans of "
            "one. Put the files of each in a folder of its own."
        )
    if _CONCATENATION in said:
        return SlideUnreadableError(
            "The DICOM file is one of several parts of an image (a concatenation), which are not all in this folder. "
            "Copy all parts to the same folder."
        )
    return None


def _no_slide_in(facts: DicomFacts | None, files: Iterable[Path]) -> str | None:
    """Why a whole DICOM series is no slide; None if it has a slide image, or its tags cannot be read."""
    if facts is None or not facts.kind:
        return None
    if facts.kind != WHOLE_SLIDE:
        return f"The DICOM file is no whole-slide image but of the kind {facts.kind_name}. Leave it out."
    shown = [each.shows for each in map(dicom_facts, files) if each is not None]
    if any(each not in PICTURES for each in shown):
        return None
    pictures = " and ".join(sorted({PICTURES[each] for each in shown}))
    return f"The DICOM series holds {pictures} but no slide image. Put the files of the slide image beside it."
