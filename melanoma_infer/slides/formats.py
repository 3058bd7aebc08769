"""File formats: which reader opens a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from melanoma_infer.errors import MminferError, SlideUnreadableError, TransientIOError
from melanoma_infer.slides.base import SlideReader
from melanoma_infer.slides.companions import require_companions
from melanoma_infer.slides.dicom import HEAD_BYTES, begins_as_dicom
from melanoma_infer.slides.refusal import BIG_ENDIAN_BIGTIFF, refusal
from melanoma_infer.slides.series import require_one_slide
from melanoma_infer.slides.suffixes import IMAGE_SUFFIXES

TRANSIENT = {errno.EIO, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EAGAIN}
"""Failures of a network share, not of the slide. ESTALE is added where the platform defines it."""
TRANSIENT |= {errno.ESTALE} if hasattr(errno, "ESTALE") else set()


def open_reader(path: Path) -> SlideReader:
    """A reader of the slide in that file: the first one that knows its format.

    Raises:
        SlideUnreadableError: it is missing, damaged or incomplete, a file that belongs to it is missing, or files of
            another slide are among its own.
        SlideFormatError: no reader knows its format or its encoding, or it holds no slide image.
        TransientIOError: the storage failed.
    """
    from melanoma_infer.slides import image_reader, openslide_reader

    if os.path.isdir(path):
        raise _folder_error(path)
    if os.path.islink(path) and not os.path.exists(path):
        raise SlideUnreadableError(
            "The link leads to no file that you can reach. Restore the file, or remove the link."
        )
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        require_companions(path)
    except OSError as error:
        raise storage_error(error) from error
    require_one_slide(path)
    if openslide_reader.knows(path):
        return openslide_reader.OpenSlideReader(path)
    is_left_to_pillow = not (begins_as_dicom(head) or head.startswith(BIG_ENDIAN_BIGTIFF))
    if path.suffix.lower() in IMAGE_SUFFIXES and is_left_to_pillow:
        return image_reader.ImageReader(path)
    raise refusal(path)


def _folder_error(folder: Path) -> MminferError:
    """The error to raise for a folder in place of a slide. The search for slides names the folders it cannot enter."""
    try:
        require_searchable(folder)
    except OSError as error:
        if error.errno in TRANSIENT:
            return storage_error(error)
        return SlideUnreadableError(
            f"The folder cannot be searched for slides ({error.strerror}). Get the right to list and to enter it, or "
            "leave it out."
        )
    return SlideUnreadableError("This is a folder. Check that it exists as a file, or give it to `mminfer score`.")


def require_searchable(folder: Path) -> None:
    """Require that a folder can be listed and entered.

    Raises:
        OSError: it cannot.
    """
    with os.scandir(folder):
        os.stat(os.path.join(folder, "."))  # needs the right to enter, which listing does not


def storage_error(error: OSError) -> SlideUnreadableError | TransientIOError:
    """The error to raise for one of the file system; its message leaves the path out."""
    why = error.strerror or type(error).__name__
    if error.errno in TRANSIENT:
        return TransientIOError(f"The storage failed ({why}). Run the same command again.")
    return SlideUnreadableError(f"The file cannot be read ({why}). Check that it exists and that you may read it.")
