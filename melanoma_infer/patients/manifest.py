"""Manifests: a CSV file with one row a slide → what it says about each slide.

Columns: id, slide, case_id, age, sex, site, ulceration, specimen, stain, mpp, and the card's other patient fields. Only
`slide` is required; its paths are relative to the manifest. Values are read leniently: one that the model does not know
becomes "unknown" and is named. The exceptions are errors: `mpp`, which changes millimetres, and a date in place of an
age. Which row belongs to which slide is decided in `pipeline/cohort.py`, which can look at the slides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from melanoma_infer.card import UNKNOWN, ModelCard
from melanoma_infer.errors import PatientValueError, UsageError
from melanoma_infer.patients.numbers import parse_scale
from melanoma_infer.patients.patient import (
    SHOWN_CHARS,
    ULCERATION,
    Patient,
    lenient_patient,
    stated_specimen,
    stated_stain,
)
from melanoma_infer.patients.slide_path import slide_path
from melanoma_infer.patients.table import SEPARATORS, Row, read_table
from melanoma_infer.patients.vocabulary import OPPOSITE_BESIDE, is_missing, word_of
from melanoma_infer.runtime.privacy import slide_name

FIXED_COLUMNS = ("slide", "id", "case_id", ULCERATION, "specimen", "stain", "mpp")
"""The columns that every manifest may have, whatever the model; the card's patient fields are added to them."""
SEX = "sex"
LINES_SHOWN = 3
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class ManifestRow:
    """One slide of a manifest."""

    line: int
    """Where it is in the file, from 1."""
    path: Path
    """Where its slide is, as far as this can be known (`slide_path`)."""
    id: str
    case_id: str | None
    patient: Patient
    specimen: str | None
    stain: str | None
    mpp_um: tuple[float, float] | None
    misread: dict[str, str]
    """By column, why its value was not understood; it counts as unknown."""
    row: Row
    """As written."""


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, in its order."""

    rows: tuple[ManifestRow, ...]
    separator: str
    """What separates its columns, in words: commas, or "semicolons, as its first line says"."""
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
        found += [f"{numbered(where)}, {what}" for what, where in lines.items()]
        return found + [
            f"{numbered(where)}, column sex: slides of one case differ. Check that each row is the right patient's."
            for where in _differing(self.rows, SEX)
        ]


def numbered(lines: list[int]) -> str:
    """Line numbers as words: "line 2", "lines 2 and 3", "lines 2, 3, 4 and 96 more"."""
    if len(lines) == 1:
        return f"line {lines[0]}"
    more = len(lines) - LINES_SHOWN
    *first, last = map(str, lines) if more <= 0 else (*lines[:LINES_SHOWN], f"{more} more")
    return f"lines {', '.join(map(str, first))} and {last}"


def _differing(rows: Iterable[ManifestRow], field: str) -> list[list[int]]:
    """The lines of each case whose slides state different values of a patient field that no patient changes."""
    cases: dict[str, list[ManifestRow]] = {}
    for row in rows:
        if row.case_id and row.patient.values.get(field, UNKNOWN) != UNKNOWN:
            cases.setdefault(row.case_id, []).append(row)
    return [
        [row.line for row in same] for same in cases.values() if len({row.patient.values[field] for row in same}) > 1
    ]


def read_manifest(path: Path, card: ModelCard, more_columns: Sequence[str] = ()) -> Manifest:
    """The manifest in a CSV file.

    Args:
        path: the file.
        card: its patient fields are columns, too.
        more_columns: further columns that the caller reads.

    Raises:
        PatientValueError: it cannot be read, has no column `slide` or one column twice, or holds a bad scale or a date
            in place of an age.
    """
    table = read_table(path, "slide")
    fields = (field.name for field in card.patient_fields)
    columns = tuple(dict.fromkeys((*FIXED_COLUMNS, *fields, *more_columns)))
    unused = tuple(name for name in table.columns if name.casefold() not in columns)
    if not table.rows:
        raise PatientValueError("The manifest has no row below its header. Add a row for each slide.")
    doubted = _doubted_letters(table.rows, card)
    rows = tuple(_row(path.parent, row, card, doubted, decimal_comma=table.separator != ",") for row in table.rows)
    separator = SEPARATORS[table.separator] + ", as its first line says" * table.separator_stated
    return Manifest(rows, separator, columns, unused)


def _doubted_letters(rows: Sequence[Row], card: ModelCard) -> set[tuple[str, str]]:
    """The columns and letters that would be misunderstood, because the column is in another language."""
    return {
        (field.name, letter)
        for field in card.patient_fields
        for letter, other in OPPOSITE_BESIDE.items()
        if word_of(letter, field.values)
        and {letter, other} <= {row.cells.get(field.name, "").casefold() for row in rows}
    }


def _given(row: Row) -> dict[str, str]:
    """The cells of a row that say something.

    Left out: empty cells, and ids that say that nothing is known. In other columns a card may use a word like "none".
    """
    if not row.cells["slide"]:
        raise PatientValueError(
            f"Line {row.line} of the manifest names no slide. Fill in the column `slide`, or remove the line."
        )
    ids = ("id", "case_id")
    for column in ids:
        if _CONTROL.search(text := row.cells.get(column, "")):
            raise PatientValueError(
                f"Line {row.line} of the manifest: {column}: {text[:SHOWN_CHARS]!r} has a line break or another "
                "control character. Remove it."
            )
    return {name: cell for name, cell in row.cells.items() if cell and not (name in ids and is_missing(cell))}


def _row(
    folder: Path, row: Row, card: ModelCard, doubted: Collection[tuple[str, str]], *, decimal_comma: bool
) -> ManifestRow:
    given = _given(row)
    doubts = {column: cell for column, cell in given.items() if (column, cell.casefold()) in doubted}
    clear = {column: cell for column, cell in given.items() if column not in doubts}
    try:
        patient, misread = lenient_patient(clear, card.patient_fields)
        mpp_um = parse_scale(given["mpp"], decimal_comma=decimal_comma) if "mpp" in given else None
    except (UsageError, PatientValueError) as error:
        raise PatientValueError(f"Line {row.line} of the manifest: {error}") from error
    for column, cell in doubts.items():
        misread[column] = f"{cell!r} beside {OPPOSITE_BESIDE[cell.casefold()].upper()!r} is not clear. Write the words."
    return ManifestRow(
        line=row.line,
        path=slide_path(folder, given["slide"]),
        id=given.get("id", slide_name(PureWindowsPath(given["slide"]))),
        case_id=given.get("case_id"),
        patient=patient,
        specimen=_lenient(stated_specimen, given.get("specimen"), "specimen", misread),
        stain=_lenient(stated_stain, given.get("stain"), "stain", misread),
        mpp_um=mpp_um,
        misread=misread,
        row=row,
    )


def _lenient(parse: Callable[[str], str | None], text: str | None, column: str, misread: dict[str, str]) -> str | None:
    """The stated word; None if it is unknown, and why it was not understood is then added to `misread`."""
    try:
        return parse(text) if text else None
    except PatientValueError as error:
        misread[column] = str(error)
        return None
