"""Which files belong to a slide, its identity, and the slides of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from melanoma_infer.errors import UsageError
from melanoma_infer.records import Identity
from melanoma_infer.slides.formats import SLIDE_SUFFIXES, storage_error

MEBIBYTE = 1 << 20
DICOM_HEADER_BYTES = 1 << 16
_SERIES_TAG = b"\x20\x00\x0e\x00UI"


@dataclass(frozen=True)
class FoundSlides:
    """The slides under some paths, and the number of files that belong to them."""

    paths: tuple[Path, ...]
    files: int


def find_slides(paths: Iterable[Path]) -> FoundSlides:
    """The slides in these files and folders, in the order given; folders are searched, their slides sorted.

    Files of one DICOM series in one folder are one slide, named by the first of them.

    Raises:
        UsageError: a folder holds no slide.
    """
    found: dict[object, Path] = {}
    for path in paths:
        inside = sorted(_slides_in(path)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"The folder holds no slide ({', '.join(SLIDE_SUFFIXES)}). Give a folder with slides.")
        for slide in inside:
            series = dicom_series(slide)
            found.setdefault((slide.parent, series) if series else slide, slide)
    return FoundSlides(tuple(found.values()), sum(len(members(path)) for path in found.values()))


def members(path: Path) -> list[Path]:
    """The files that belong to a slide, sorted: an MRXS file and its folder, a DICOM series, or a single file."""
    if path.suffix.lower() == ".mrxs":
        folder = path.with_suffix("")
        return [path, *sorted(file for file in folder.glob("*") if file.is_file())]
    series = dicom_series(path)
    if series is None:
        return [path]
    return sorted(file for file in path.parent.glob("*.dcm") if dicom_series(file) == series)


def dicom_series(path: Path) -> bytes | None:
    """The SeriesInstanceUID of a DICOM file; None for another file."""
    if path.suffix.lower() != ".dcm":
        return None
    try:
        stat = path.stat()
        return _series_in(path, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return None


@lru_cache(maxsize=1 << 16)
def _series_in(path: Path, mtime_ns: int, size: int) -> bytes | None:
    """The series in a file's header. Cached, because every file of a folder is asked for every slide."""
    with path.open("rb") as file:
        header = file.read(DICOM_HEADER_BYTES)
    at = header.find(_SERIES_TAG)
    if at < 0:
        return None
    start = at + len(_SERIES_TAG) + 2
    length = int.from_bytes(header[start - 2 : start], "little")
    return header[start : start + length].rstrip(b"\0 ")


def identify(path: Path, quickhash: str | None, *, full: bool = False) -> Identity:
    """Which slide this is: sha256 over each member's size, first and last MiB, and OpenSlide's quickhash.

    Args:
        path: the slide.
        quickhash: OpenSlide's, over the smallest level; None: all bytes are hashed.
        full: hash all bytes.

    Raises:
        SlideUnreadableError, TransientIOError: a member cannot be read.
    """
    digest = hashlib.sha256((quickhash or "").encode())
    files = members(path)
    try:
        for file in files:
            digest.update(file.stat().st_size.to_bytes(8, "little"))
            for part in _parts(file, whole=full or quickhash is None):
                digest.update(part)
        stats = [file.stat() for file in files]
    except OSError as error:
        raise storage_error(error) from error
    return Identity(
        digest=digest.hexdigest(),
        size_bytes=sum(stat.st_size for stat in stats),
        mtime_ns=max(stat.st_mtime_ns for stat in stats),
        members=len(files),
    )


def _parts(path: Path, *, whole: bool) -> Iterator[bytes]:
    with path.open("rb") as file:
        if whole:
            while part := file.read(MEBIBYTE):
                yield part
            return
        yield file.read(MEBIBYTE)
        file.seek(max(0, path.stat().st_size - MEBIBYTE))
        yield file.read(MEBIBYTE)


def _slides_in(folder: Path) -> Iterator[Path]:
    """The slides under a folder, one path each, without hidden files and files that belong to another slide.

    PNG and JPEG files are ignored: in a folder they are more often pictures of slides than slides.
    """
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or path.suffix.lower() not in SLIDE_SUFFIXES:
            continue
        if not (path.parent.parent / f"{path.parent.name}.mrxs").is_file():
            yield path
