"""Which files belong to a slide, and its identity."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from melanoma_infer.errors import MminferError
from melanoma_infer.records import Identity
from melanoma_infer.slides.companions import MIRAX, beside_companions, companions
from melanoma_infer.slides.formats import storage_error
from melanoma_infer.slides.series import series_files

MEBIBYTE = 1 << 20


def members(path: Path) -> list[Path]:
    """The files that belong to a slide, sorted: an MRXS file and its folder, a VMS file and its images, a DICOM series,
    or a single file.
    """
    path = beside_companions(path)
    if path.suffix.lower() == MIRAX:
        folder = path.with_suffix("")
        try:
            names = os.listdir(folder)
        except OSError:  # opening the slide says why
            names = []
        return [path, *sorted(folder / name for name in names if os.path.isfile(folder / name))]
    if named := companions(path):
        return [path, *sorted({file for file in named if os.path.isfile(file)})]
    return series_files(path)


class MemberState(NamedTuple):
    """A member as a writer has left it."""

    name: str
    """Its path from the slide's folder."""
    size_bytes: int
    mtime_ns: int


def member_states(path: Path) -> tuple[MemberState, ...]:
    """The members of a slide, sorted, each with its size and the time of its last change.

    Raises:
        OSError: one of them is gone, or cannot be looked at.
    """
    states = ((file, file.stat()) for file in members(path))
    return tuple(
        MemberState(os.path.relpath(file, path.parent), status.st_size, status.st_mtime_ns) for file, status in states
    )


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


def identify_unopened(path: Path) -> str | None:
    """A digest to tell a slide from others that cannot be opened either: of its size, first and last MiB.

    None if they cannot be read.
    """
    try:
        return identify(path, "").digest
    except (MminferError, OSError):
        return None


def _parts(path: Path, *, whole: bool) -> Iterator[bytes]:
    with path.open("rb") as file:
        if whole:
            while part := file.read(MEBIBYTE):
                yield part
            return
        yield file.read(MEBIBYTE)
        file.seek(max(0, path.stat().st_size - MEBIBYTE))
        yield file.read(MEBIBYTE)
