"""Manifests: a CSV file with one row a slide → what it says about each slide.

Columns: id, slide, case_id, age, sex, site, ulceration, specimen, stain, mpp, and the card's other patient fields. Only
`slide` is required; its paths are relative to the manifest. Values are read leniently: one that the model does not know
becomes "unknown" and is named. The exceptions are errors: `mpp`, which changes millimetres, and a date in place of an
age. Which row belongs to which slide is decided in `pipeline/cohort.py`, which can look at the slides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import PatientValueError, UsageError
from melanoma_infer.patients.numbers import parse_scale
from melanoma_infer.patients.patient import ULCERATION, Patient, lenient_patient, stated_specimen, stated_stain
from melanoma_infer.patients.table import SEPARATORS, Row, read_table
from melanoma_infer.patients.vocabulary import is_missing

FIXED_COLUMNS = ("slide", "id", "case_id", ULCERATION, "specimen", "stain", "mpp")
"""The columns that every manifest may have, whatever the model; the card's patient fields are added to them."""
LINES_SHOWN = 3


@dataclass(frozen=True)
class ManifestRow:
    """One slide of a manifest."""

    line: int
    """Where it is in the file, from 1."""
    path: Path
    id: str
    case_id: str | None
    patient: Patient
    specimen: str | None
    stain: str | None
    mpp_um: tuple[float, float] | None
    misread: dict[str, str]
    """By column, why its value was not understood; it counts as unknown."""


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, in its order."""

    rows: tuple[ManifestRow, ...]
    separator: str
    """What separates its columns, as a word: commas, semicolons or tabs."""
    columns: tuple[str, ...]
    """The columns that it may have for this model."""
    unused: tuple[str, ...]
    """The columns that it has and that nothing reads, as written."""

    @property
    def doubts(self) -> list[str]:
        """What of the manifest is not used, in sentences: columns, and values with their lines."""
        found = [f"not used: {', '.join(self.unused)}. Its columns can be {', '.join(self.columns)}."] * bool(
            self.unused
        )
        lines: dict[str, list[int]] = {}
        for row in self.rows:
            for column, why in row.misread.items():
                lines.setdefault(f"column {column}: {why}", []).append(row.line)
        return found + [f"{numbered(where)}, {what}" for what, where in lines.items()]


def numbered(lines: list[int]) -> str:
    """Line numbers as words: "line 2", "lines 2 and 3", "lines 2, 3, 4 and 96 more"."""
    if len(lines) == 1:
        return f"line {lines[0]}"
    more = len(lines) - LINES_SHOWN
    *first, last = map(str, lines) if more <= 0 else (*lines[:LINES_SHOWN], f"{more} more")
    return f"lines {', '.join(map(str, first))} and {last}"


def read_manifest(path: Path, card: ModelCard) -> Manifest:
    """The manifest in a CSV file.

    Raises:
        PatientValueError: it cannot be read, has no column `slide` or one column twice, or holds a bad scale or a date
            in place of an age.
    """
    table = read_table(path, "slide")
    columns = tuple(dict.fromkeys((*FIXED_COLUMNS, *(field.name for field in card.patient_fields))))
    unused = tuple(name for name in table.columns if name.casefold() not in columns)
    if not table.rows:
        raise PatientValueError("The manifest has no row below its header. Add a row for each slide.")
    rows = tuple(_row(path.parent, row, card, decimal_comma=table.separator != ",") for row in table.rows)
    return Manifest(rows, SEPARATORS[table.separator], columns, unused)


def _row(folder: Path, row: Row, card: ModelCard, *, decimal_comma: bool) -> ManifestRow:
    # Left out: empty cells, and ids that say that nothing is known. In other columns a card may use a word like "none".
    given = {
        column: cell
        for column, cell in row.cells.items()
        if column == "slide" or (cell and not (column in ("id", "case_id") and is_missing(cell)))
    }
    if not given["slide"]:
        raise PatientValueError(
            f"Line {row.line} of the manifest names no slide. Fill in the column `slide`, or remove the line."
        )
    try:
        patient, misread = lenient_patient(given, card.patient_fields)
        mpp_um = parse_scale(given["mpp"], decimal_comma=decimal_comma) if "mpp" in given else None
    except (UsageError, PatientValueError) as error:
        raise PatientValueError(f"Line {row.line} of the manifest: {error}") from error
    return ManifestRow(
        line=row.line,
        path=folder / given["slide"],
        id=given.get("id", PureWindowsPath(given["slide"]).stem),
        case_id=given.get("case_id"),
        patient=patient,
        specimen=_lenient(stated_specimen, given.get("specimen"), "specimen", misread),
        stain=_lenient(stated_stain, given.get("stain"), "stain", misread),
        mpp_um=mpp_um,
        misread=misread,
    )


def _lenient(parse: Callable[[str], str | None], text: str | None, column: str, misread: dict[str, str]) -> str | None:
    """The stated word; None if it is unknown, and why it was not understood is then added to `misread`."""
    try:
        return parse(text) if text else None
    except PatientValueError as error:
        misread[column] = str(error)
        return None
