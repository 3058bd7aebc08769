"""Which row of a manifest says something about which slide: one slide, one row, and never another slide's row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from melanoma_infer.errors import PatientValueError
from melanoma_infer.patients.manifest import Manifest, ManifestRow, numbered
from melanoma_infer.patients.slide_path import composed
from melanoma_infer.slides.members import members
from melanoma_infer.slides.search import slide_keys


@dataclass(frozen=True)
class Match:
    """The row of a slide."""

    row: ManifestRow
    by_name: bool
    """Whether it was found by the file name alone, because the path in the row does not exist."""


def require_distinct_rows(manifest: Manifest) -> None:
    """Raise PatientValueError unless every row names a slide of its own and has an id of its own.

    Two spellings of a path, a link and its target, and two files of one DICOM series are the same slide.
    """
    for row in manifest.rows:
        if os.path.isdir(row.path):
            raise PatientValueError(f"Line {row.line} of the manifest names a folder. Name the slide's file.")
    _require_own(manifest, lambda row: slide_keys(row.path), "name the same slide. Keep one row for each slide.")
    _require_own(manifest, lambda row: {composed(row.id)}, "have the same id. Give every slide its own id.")


def match_rows(slides: Sequence[Path], manifest: Manifest) -> list[Match | None]:
    """The manifest row of each slide, in the order of the slides; None for a slide that is not in the manifest.

    A slide's row names its file, or any file of its DICOM series. A row whose path does not exist belongs to the slide
    of that file name, if there is exactly one such slide and exactly one such row.
    """
    by_key = {key: row for row in manifest.rows for key in slide_keys(row.path)}
    by_name = _by_name(slides, [row for row in manifest.rows if _is_absent(row.path)])
    matches: list[Match | None] = []
    for slide in slides:
        own = next((by_key[key] for key in slide_keys(slide) if key in by_key), None)
        row = own or by_name.get(slide)
        matches.append(Match(row, by_name=own is None) if row else None)
    return matches


def _by_name(slides: Sequence[Path], absent: Sequence[ManifestRow]) -> dict[Path, ManifestRow]:
    """The slides that share a file name with exactly one of the absent rows, and with no other slide."""
    if not absent:
        return {}
    of_name: dict[str, list[Path]] = {}
    for slide in slides:
        for name in {composed(path.name) for path in (slide, *members(slide))}:
            of_name.setdefault(name, []).append(slide)
    found: dict[Path, list[ManifestRow]] = {}
    for row in absent:
        same = of_name.get(composed(PureWindowsPath(row.path).name), [])  # manifests come from Windows, too
        if len(same) == 1:
            found.setdefault(same[0], []).append(row)
    return {slide: rows[0] for slide, rows in found.items() if len(rows) == 1}


def _is_absent(path: Path) -> bool:
    """Whether nothing is at that path; False if it cannot be known, as in a folder that may not be entered."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _require_own(manifest: Manifest, keys: Callable[[ManifestRow], set[object]], says: str) -> None:
    lines: dict[object, list[int]] = {}
    for row in manifest.rows:
        for key in keys(row):
            lines.setdefault(key, []).append(row.line)
    for shared in lines.values():
        if len(shared) > 1:
            raise PatientValueError(f"{numbered(shared).capitalize()} of the manifest {says}")
