"""File formats: which reader opens a file."""

from __future__ import annotations

import errno
from pathlib import Path

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError, TransientIOError
from melanoma_infer.slides.base import SlideReader
from melanoma_infer.slides.completeness import TIFF_MAGIC

TRANSIENT = {errno.EIO, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EAGAIN}
"""Failures of a network share, not of the slide. ESTALE is added where the platform defines it."""
TRANSIENT |= {errno.ESTALE} if hasattr(errno, "ESTALE") else set()

SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".tif", ".tiff", ".svslide", ".bif", ".czi", ".dcm",
)  # fmt: skip
"""Suffixes of the formats that OpenSlide reads."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Suffixes of files that are opened as plain images if OpenSlide does not recognise them."""

MAGIC = (*TIFF_MAGIC, b"ZISRAWFILE")
"""The first bytes of TIFF, BigTIFF and CZI files."""


def open_reader(path: Path) -> SlideReader:
    """A reader of the slide in that file: the first one that knows its format.

    Raises:
        SlideUnreadableError: it is missing, damaged or incomplete.
        SlideFormatError: no reader knows it.
        TransientIOError: the storage failed.
    """
    from melanoma_infer.slides import image_reader, openslide_reader

    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise storage_error(error) from error
    if openslide_reader.knows(path):
        return openslide_reader.OpenSlideReader(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return image_reader.ImageReader(path)
    if head.startswith(MAGIC) or head[128:132] == b"DICM":
        raise SlideUnreadableError(
            "The file begins like a slide, but its structure cannot be read: it is damaged or incomplete. Copy it "
            "again, and wait until the scanner has finished writing."
        )
    raise SlideFormatError(
        f"No reader knows this format. Slides that OpenSlide reads ({', '.join(SLIDE_SUFFIXES)}) and plain images "
        f"({', '.join(IMAGE_SUFFIXES)}) can be scored; convert others to a pyramidal TIFF."
    )


def is_plain_tiff(path: Path) -> bool:
    """Whether a file is a TIFF that bears no scanner's mark; False if it cannot be opened."""
    from melanoma_infer.slides.openslide_reader import GENERIC, vendor_of

    try:
        with path.open("rb") as file:
            is_tiff = file.read(4).startswith(TIFF_MAGIC)
    except OSError:
        return False
    return is_tiff and vendor_of(path) in (None, GENERIC)


def storage_error(error: OSError) -> SlideUnreadableError | TransientIOError:
    """The error to raise for one of the file system; its message leaves the path out."""
    why = error.strerror or type(error).__name__
    if error.errno in TRANSIENT:
        return TransientIOError(f"The storage failed ({why}). Run the same command again.")
    return SlideUnreadableError(f"The file cannot be read ({why}). Check that it exists and that you may read it.")
