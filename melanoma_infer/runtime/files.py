"""Files that are complete or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def written_aside(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path in the same folder to write to; on success it is flushed to disk and renamed to `path`, else removed.

    Its name is unique for a shared file. Otherwise it is always the same, so that the next run overwrites what a killed
    one left.

    Raises:
        OSError: as in `write_atomically`.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part" if shared else f".{path.name}.part")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
