"""Files that are complete or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
NOT_A_FOLDER = frozenset({errno.EEXIST, errno.ENOTDIR})


def why_not_written(error: OSError) -> str:
    """Why a file or folder could not be written and what to do about it: the end of a sentence, without any path."""
    if error.errno in FULL:
        return "there is no space left, or the quota is used up. Free some space, or write to another disk."
    if error.errno in FORBIDDEN:
        return "it is not allowed. Get the right to write there, or choose another folder."
    if error.errno in NO_LOCKS:
        return "this file system has no locks. Choose a folder on another one, such as a local disk."
    if error.errno in NOT_A_FOLDER:
        return "a file is where a folder has to be. Choose another folder."
    told = {
        errno.EROFS: "the file system is read-only. Choose another folder.",
        errno.ENOENT: "there is no such folder, or none can be made there. Choose another folder.",
        errno.ENAMETOOLONG: "its name is too long for the file system. Choose a shorter one.",
        errno.EISDIR: "a folder has that name. Choose another name.",
        errno.EFBIG: "the file system does not take files of that size. Choose another folder.",
        errno.EMFILE: "too many files are open. Raise the limit (ulimit -n).",
        errno.EIO: "the disk reports an error. Check it, or choose another folder.",
        errno.ESTALE: "the network file system has lost the folder. Mount it again.",
    }
    return told.get(error.errno or 0, f"{error.strerror or type(error).__name__}. Choose another folder.")


def write_atomically(path: Path, content: bytes, *, shared: bool = False) -> None:
    """Write a file so that other processes see the old content or the new, never a part of it.

    Args:
        path: in a folder that exists.
        content: the whole file.
        shared: other processes may write the same file at the same time, as in the cache.

    Raises:
        OSError: it cannot be written; the old file, if any, is unchanged.
    """
    with written_aside(path, shared=shared) as aside:
        aside.write_bytes(content)


def part_of(path: Path) -> Path:
    """Where a file is written before it is renamed, unless it is shared; a process that is killed leaves it there."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def written_aside(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path in the same folder to write to; on success it is flushed to disk and renamed to `path`, else removed.

    Its name is unique for a shared file. Otherwise it is always the same, so that the next run overwrites what a killed
    one left.

    Raises:
        OSError: as in `write_atomically`.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") if shared else part_of(path)
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
