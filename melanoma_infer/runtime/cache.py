"""The cache folder: `MMINFER_CACHE`, else the user's cache. It may be deleted: everything in it can be remade."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from melanoma_infer.errors import OutputError
from melanoma_infer.runtime.files import write_atomically

VARIABLE = "MMINFER_CACHE"
NAME = "mminfer"


def cache_folder(kind: str) -> Path:
    """The folder for files of one kind ("parity", …); it need not exist yet."""
    if named := os.environ.get(VARIABLE):
        return Path(named) / kind
    if platform.system() == "Windows" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / NAME / "cache" / kind
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / NAME / kind
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / NAME / kind


def read_cached(path: Path) -> bytes | None:
    """The bytes of a cached file; None when it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def write_cached(path: Path, content: bytes) -> None:
    """Write a cached file atomically; its folder is created if needed.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, shared=True)
    except OSError as error:
        raise OutputError(
            f"The cache cannot be written ({error.strerror or type(error).__name__}). Set {VARIABLE} to a writable "
            "folder."
        ) from error
