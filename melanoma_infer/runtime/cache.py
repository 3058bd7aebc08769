"""The cache folder: `MMINFER_CACHE`, else the user's cache. It may be deleted at any time."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

from melanoma_infer.errors import OutputError

VARIABLE = "MMINFER_CACHE"
NAME = "mminfer"


def cache_folder(kind: str) -> Path:
    """Where files of a kind ("parity", …) are kept; it need not exist yet."""
    return _root() / kind


def read_cached(path: Path) -> bytes | None:
    """The bytes of a cached file; None if it does not exist or cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def write_cached(path: Path, content: bytes) -> None:
    """Write a cached file, which is there whole or not at all; its folder is made when it is not there.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(beside).replace(path)
        finally:
            Path(beside).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"The cache cannot be written ({error.strerror or type(error).__name__}). Set {VARIABLE} to a folder that "
            "can."
        ) from error


def _root() -> Path:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if platform.system() == "Windows" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / NAME / "cache"
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / NAME
