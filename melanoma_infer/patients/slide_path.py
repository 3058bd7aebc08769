"""Where the slide of a manifest row is: manifests come from Windows and macOS, too."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PureWindowsPath
from typing import Literal


def slide_path(folder: Path, written: str) -> Path:
    r"""The path that a manifest in a folder names.

    If nothing is at the path as written, it is read as Windows writes it (sub\a.svs is sub/a.svs), and with letters
    such as ü in one code point or in two, as macOS writes them. A spelling counts only if something is there.
    """
    slashes = written if PureWindowsPath(written).anchor else written.replace("\\", "/")
    spellings = (written, *(composed(text, form) for text in (slashes, written) for form in ("NFC", "NFD")))
    return next((folder / each for each in spellings if os.path.lexists(folder / each)), folder / slashes)


def composed(text: str, form: Literal["NFC", "NFD"] = "NFC") -> str:
    """The text with letters such as ü in one code point (NFC) or in two (NFD), so that equal looks are equal texts."""
    return unicodedata.normalize(form, text)
