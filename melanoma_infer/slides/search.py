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
    skipped: tuple[Path, ...] = ()
    """DICOM files in the folders that are no whole-slide images. A file that was named is never skipped."""


def find_slides(paths: Iterable[Path], *, may_be_empty: bool = False) -> FoundSlides:
    """The slides in these files and folders, in the order given; folders are searched, their slides sorted.

    Links are followed. A file that is reached twice is one slide, and so are the files of one DICOM study and series
    in one folder; its first path names it.

    Args:
        paths: slides, and folders that hold slides.
        may_be_empty: whether a folder may hold no slide.

    Raises:
        UsageError: a folder holds no slide.
    """
    found: list[Path] = []
    skipped: dict[Path, None] = {}
    seen: set[object] = set()
    for path in paths:
        inside = [path]
        others: dict[Path, None] = {}
        if os.path.isdir(path):
            inside = sorted(_slides_in(path))
            others = dict.fromkeys(filter(_is_other_dicom, inside))
            skipped |= others
            inside = [each for each in inside if each not in others]
        if not inside and not may_be_empty:
            but = ", only DICOM files of other kinds" if others else ""
            raise UsageError(
                f"The folder holds no slide ({', '.join(SLIDE_SUFFIXES)}){but}. Give a folder with slides."
            )
        for slide in inside:
            keys = slide_keys(slide)
            if seen.isdisjoint(keys):
                found.append(slide)
            seen |= keys
    readable = [path for path in found if os.path.isfile(path) and os.access(path, os.R_OK)]
    files = sum(len(members(path)) for path in readable)
    return FoundSlides(tuple(found), files, len(found) - len(readable), tuple(skipped))


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
    """Whether a file is a slide by its suffix, is DICOM by its content, or cannot be looked at."""
    if not os.path.exists(path):
        return True  # a link that leads nowhere
    if not os.path.isfile(path):
        return False
    suffix = path.suffix.lower()
    if suffix in SLIDE_SUFFIXES or suffix in IMAGE_SUFFIXES:
        return suffix in SLIDE_SUFFIXES
    try:
        with path.open("rb") as file:
            return begins_as_dicom(file.read(HEAD_BYTES))
    except OSError:
        return True


def _is_other_dicom(path: Path) -> bool:
    """Whether a file is DICOM of another kind than a whole-slide image.

    Such files are often beside a slide: the index of a medium (DICOMDIR), annotations, other images of the study.
    """
    facts = dicom_facts(path)
    return facts is not None and facts.kind not in (WHOLE_SLIDE, "")
