"""The files beside a slide that belong to it, in formats whose main file is only an index or a picture.

MIRAX: `name.mrxs` and the folder `name/` with Slidedat.ini, which names the others. Hamamatsu VMS and VMU: a key file
that names the images and the map. The files of a DICOM series are found by `series.py`.
"""

from __future__ import annotations

import os
from configparser import ConfigParser, Error
from pathlib import Path

from melanoma_infer.errors import SlideUnreadableError

MIRAX, MIRAX_INDEX = ".mrxs", "Slidedat.ini"
KEY_FILES = (".vms", ".vmu")
INDEX_BYTES_MAX = 1 << 20
"""OpenSlide refuses longer ones."""


def companions(path: Path) -> list[Path]:
    """The files that a slide's format needs beside it, whether they exist or not; none for a format of one file."""
    suffix = path.suffix.lower()
    if suffix == MIRAX:
        folder = path.with_suffix("")
        sections = _sections(folder / MIRAX_INDEX)
        index = sections.get("hierarchical", {}).get("indexfile")
        data = (name for key, name in sections.get("datafile", {}).items() if key.removeprefix("file_").isdigit())
        return [folder / name for name in (MIRAX_INDEX, index, *data) if name]
    if suffix in KEY_FILES:
        entries = [entry for section in _sections(path).values() for entry in section.items()]
        wanted = (name for key, name in entries if key.startswith("imagefile") or key in ("mapfile", "macroimage"))
        return [path.parent / name for name in wanted]
    return []


def beside_companions(path: Path) -> Path:
    """The path beside which the companions are: for a link, the file it leads to if they are only there."""
    if not os.path.islink(path) or _first_missing(path) is None:
        return path
    real = Path(os.path.realpath(path))
    return path if _first_missing(real) else real


def require_companions(path: Path) -> None:
    """Require that all files which belong to a slide are there and can be opened.

    Raises:
        SlideUnreadableError: one is missing; it names the first, or its folder.
        OSError: one cannot be opened.
    """
    missing = _first_missing(path)
    if missing is None:
        for each in companions(path):
            each.open("rb").close()
        return
    folder, file = f"{missing.parent.name}/", missing.name
    if not missing.parent.is_dir():
        what = f"The folder {folder}"
    else:
        what = f"The file {file}" if missing.parent == path.parent else f"The file {file} in the folder {folder}"
    raise SlideUnreadableError(
        f"{what} is missing. It belongs to this slide, of which the {path.suffix} file is only a part: copy all parts "
        "to the same place.",
        names=(folder,) if file == MIRAX_INDEX else (folder, file),
    )


def _first_missing(path: Path) -> Path | None:
    """The first companion that does not exist. One that may not be looked at is not missing."""
    for file in companions(path):
        try:
            file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return file
        except OSError:
            continue
    return None


def _sections(index: Path) -> dict[str, dict[str, str]]:
    """The sections of an index, their names and keys in small letters; empty if it cannot be read."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",), default_section="")
    try:
        with index.open("rb") as file:
            parser.read_string(file.read(INDEX_BYTES_MAX).decode("utf-8-sig", "surrogateescape"))
    except (OSError, Error):
        return {}
    return {name.lower(): {key: value for key, value in parser[name].items() if value} for name in parser}
