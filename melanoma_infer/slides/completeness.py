"""Is the file complete? A truncated copy may open without an error."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma_infer.errors import SlideUnreadableError

if TYPE_CHECKING:
    from tifffile import TiffFile

COPY_AGAIN = "Copy it again, and wait until the scanner has finished writing."
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BEYOND = re.compile(r"TiffTag (?:273|279|324|325|347) @\d+> invalid value offset|invalid page offset|corrupted IFD")
"""What tifffile logs when a directory, the offsets of its strips or tiles (273, 279, 324, 325) or its JPEG tables (347)
are beyond the end of the file. Other tags are ignored: scanners write private ones with any content."""


def require_complete(path: Path) -> None:
    """Require that every directory and every tile of a TIFF-like slide is inside the file.

    OpenSlide opens an SVS that lost its last kilobyte, without what was stored there, and takes a file without any
    tile, which a converter left when it failed, for a slide that was nowhere scanned.

    Raises:
        SlideUnreadableError: the file ends too early.
    """
    with path.open("rb") as file:
        if not file.read(4).startswith(TIFF_MAGIC):
            return
    from tifffile import TiffFile, TiffFileError

    with complaints() as heard:
        try:
            with TiffFile(path) as tiff:
                size = tiff.filehandle.size
                pages = list(pages_of(tiff))
                ends = (
                    offset + count
                    for page in pages
                    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
                )
                ends_early = not pages or not any(pages[0].databytecounts) or any(end > size for end in ends)
        except (TiffFileError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error):
            ends_early = True
    if ends_early or any(_BEYOND.search(text) for text in heard):
        raise SlideUnreadableError(f"The file ends before its last part: it is incomplete. {COPY_AGAIN}")


def pages_of(tiff: TiffFile) -> Iterator[Any]:
    """The pages of a TIFF, in its order.

    Raises:
        SlideUnreadableError: a page is followed by an earlier one; tifffile would go round for ever.
    """
    seen: set[int] = set()
    for page in tiff.pages:
        if page.offset in seen:
            raise SlideUnreadableError("A page leads back to an earlier page: the file is damaged. Copy it again.")
        seen.add(page.offset)
        yield page


def is_whole_tiff(path: Path) -> bool:
    """Whether the structure of a TIFF file can be read, and all of it is there."""
    try:
        require_complete(path)
    except SlideUnreadableError:
        return False
    return True


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Messages that tifffile logs in the block; they do not reach the terminal."""
    kept: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    logger, keeper = logging.getLogger("tifffile"), Keeper()
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(keeper)
    try:
        yield kept
    finally:
        logger.removeHandler(keeper)
        logger.propagate = propagated
