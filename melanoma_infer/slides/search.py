"""The slides in files and folders: each once, and none lost because a folder may not be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from melanoma_infer.errors import UsageError
from melanoma_infer.slides.companions import MIRAX
from melanoma_infer.slides.dicom import HEAD_BYTES, WHOLE_SLIDE, begins_as_dicom, dicom_facts, dicom_series
from melanoma_infer.slides.formats import require_searchable
from melanoma_infer.slides.members import members
from melanoma_infer.slides.suffixes import IMAGE_SUFFIXES, SLIDE_SUFFIXES


@dataclass(frozen=True)
class FoundSlides:
    """The slides under some paths."""

    paths: tuple[Path, ...]
    """One path a slide. Links that lead nowhere, and files and folders that may not be read, are among them: opening
    them says why, and each counts as a slide that failed."""
    files: int
    """The number of files that belong to slides."""
    unread: int = 0
    """How many of the paths cannot be read."""


def find_slides(paths: Iterable[Path]) -> FoundSlides:
    """The slides in these files and folders, in the order given; folders are searched, their slides sorted.

    Links are followed. A file that is reached twice is one slide, and so are the files of one DICOM study and series
    in one folder; its first path names it.

    Raises:
        UsageError: a folder holds no slide.
    """
    found: list[Path] = []
    seen: set[object] = set()
    for path in paths:
        inside = sorted(_slides_in(path)) if os.path.isdir(path) else [path]
        if not inside:
            raise UsageError(f"The folder holds no slide ({', '.join(SLIDE_SUFFIXES)}). Give a folder with slides.")
        for slide in inside:
            keys = slide_keys(slide)
            if seen.isdisjoint(keys):
                found.append(slide)
            seen |= keys
    readable = [path for path in found if os.path.isfile(path) and os.access(path, os.R_OK)]
    return FoundSlides(tuple(found), sum(len(members(path)) for path in readable), len(found) - len(readable))


def slide_keys(slide: Path) -> set[object]:
    """What two paths of the same slide have in common: the file, or the study and series in the folder of either."""
    real = os.path.realpath(slide)
    series = dicom_series(slide)
    if series is None:
        return {real}
    return {(os.path.dirname(real), series), (os.path.realpath(slide.parent), series)}


def _slides_in(folder: Path) -> Iterator[Path]:
    """The slides under a folder, one path each, without hidden files and files that belong to another slide.

    A folder is searched once, however many links lead to it. PNG and JPEG files are ignored: in a folder they are more
    often pictures of slides than slides.
    """
    blocked: list[Path] = []
    searched: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=lambda e: blocked.append(Path(e.filename))):
        if os.path.realpath(here) in searched or _belongs_to_a_slide(here):
            folders.clear()
            continue
        searched.add(os.path.realpath(here))
        try:
            require_searchable(Path(here))
        except OSError:
            folders.clear()
            yield Path(here)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = (Path(here, name) for name in names if not name.startswith("."))
        yield from (path for path in shown if _may_be_a_slide(path))
    yield from (path for path in blocked if not _belongs_to_a_slide(str(path)))


def _belongs_to_a_slide(folder: str) -> bool:
    """Whether a folder is the one of an MRXS file, by its own name or by that of a link to it."""
    names = {os.path.abspath(folder), os.path.realpath(folder)}
    return any(os.path.isfile(f"{name}{suffix}") for name in names for suffix in (MIRAX, MIRAX.upper()))


def _may_be_a_slide(path: Path) -> bool:
    """Whether a file is a slide by its suffix or a DICOM slide by its content, or cannot be looked at.

    DICOM of other kinds is often beside a slide, such as the index of a medium (DICOMDIR) and annotations.
    """
    if not os.path.exists(path):
        return True  # a link that leads nowhere
    if not os.path.isfile(path):
        return False
    suffix = path.suffix.lower()
    if suffix in SLIDE_SUFFIXES or suffix in IMAGE_SUFFIXES:
        return suffix in SLIDE_SUFFIXES
    try:
        with path.open("rb") as file:
            if not begins_as_dicom(file.read(HEAD_BYTES)):
                return False
    except OSError:
        return True
    facts = dicom_facts(path)
    return facts is None or facts.kind in (WHOLE_SLIDE, "")
