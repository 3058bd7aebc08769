"""Manifests: a CSV file with one row a slide → what it says about each slide.

Columns: id, slide, case_id, age, sex, site, ulceration, specimen, stain, mpp, and the card's other patient fields. Only
`slide` is required; its paths are relative to the manifest. Values are read leniently: one that the model does not know
becomes "unknown" and is counted. The exception is `mpp`, which changes millimetres: a bad scale is an error.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import PatientValueError, UsageError
from melanoma_infer.patients.patient import Patient, lenient_patient, stated_specimen, stated_stain

COLUMNS = ("id", "slide", "case_id", "age", "sex", "site", "ulceration", "specimen", "stain", "mpp")


@dataclass(frozen=True)
class ManifestRow:
    """One slide of a manifest."""

    path: Path
    id: str
    case_id: str | None
    patient: Patient
    specimen: str | None
    stain: str | None
    mpp_um: tuple[float, float] | None
    misread: tuple[str, ...]
    """Columns whose value was not understood and counts as unknown."""


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, in its order."""

    rows: tuple[ManifestRow, ...]

    def row_of(self, slide: Path) -> ManifestRow | None:
        """The row of a slide, by its path, or by its file name if that is unique."""
        wanted = slide.resolve()
        by_path = [row for row in self.rows if row.path.resolve() == wanted]
        by_name = [row for row in self.rows if row.path.name == slide.name]
        found = by_path or by_name
        return found[0] if len(found) == 1 else None

    @property
    def misread(self) -> Counter[str]:
        """How often each column was not understood."""
        return Counter(name for row in self.rows for name in row.misread)


def read_manifest(path: Path, card: ModelCard) -> Manifest:
    """The manifest in a CSV file.

    Raises:
        PatientValueError: it cannot be read, has no column `slide`, repeats an id, or holds a bad scale.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if "slide" not in (reader.fieldnames or ()):
                raise PatientValueError(f"The manifest has no column `slide`. Its columns may be {', '.join(COLUMNS)}.")
            rows = [_row(path.parent, reader.line_num, cells, card) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PatientValueError("The manifest cannot be read. Save it as CSV with commas, in UTF-8.") from error
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise PatientValueError(f"The manifest repeats {len(twice)} ids. Give every slide its own id.")
    return Manifest(tuple(rows))


def _row(folder: Path, line: int, cells: dict[str | None, str | None], card: ModelCard) -> ManifestRow:
    if None in cells or None in cells.values():
        found = len(cells) - (None in cells) - list(cells.values()).count(None) + len(cells.get(None) or ())
        header = len(cells) - (None in cells)
        raise PatientValueError(
            f"Line {line} of the manifest has {found} column{'s' * (found != 1)}; the header has {header}. Correct it."
        )
    given = {str(name).strip(): (value or "").strip() for name, value in cells.items()}
    if not given["slide"]:
        raise PatientValueError(
            f"Line {line} of the manifest names no slide. Fill in the column `slide`, or remove the line."
        )
    slide = folder / given["slide"]
    patient, misread = lenient_patient(given, card.patient_fields)
    try:
        mpp_um = parse_scale(given["mpp"]) if given.get("mpp") else None
    except UsageError as error:
        raise PatientValueError(f"Line {line} of the manifest: {error}") from error
    return ManifestRow(
        path=slide,
        id=given.get("id") or slide.stem,
        case_id=given.get("case_id") or None,
        patient=patient,
        specimen=_lenient(stated_specimen, given.get("specimen"), "specimen", misread),
        stain=_lenient(stated_stain, given.get("stain"), "stain", misread),
        mpp_um=mpp_um,
        misread=tuple(misread),
    )


def _lenient(parse: Callable[[str], str], text: str | None, column: str, misread: list[str]) -> str | None:
    """The stated word; None if it is unknown, and its column is then added to `misread`."""
    try:
        return parse(text) if text else None
    except PatientValueError:
        misread.append(column)
        return None


def parse_scale(text: str) -> tuple[float, float]:
    """µm per pixel (x, y) of "X" or "X,Y".

    Raises:
        UsageError: it has neither form.
    """
    try:
        numbers = [float(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(0 < number < 1e6 for number in numbers):
        raise UsageError("A scale is X or X,Y in µm per pixel, for example 0.25 or 0.25,0.25.")
    return numbers[0], numbers[-1]
