"""A table that a spreadsheet or a database wrote as text: its encoding and separator are found, its columns named."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from melanoma_infer.errors import PatientValueError
from melanoma_infer.runtime.plural import plural

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_ADVICE = "Save it as CSV in UTF-8, with columns separated by commas, semicolons or tabs."


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    line: int
    """As an editor counts lines, from 1."""
    cells: dict[str, str]
    """By column in lower case, without surrounding spaces."""


@dataclass(frozen=True)
class Table:
    """A table, as text."""

    columns: tuple[str, ...]
    """As written, without surrounding spaces; columns that are empty down to the last row are left out."""
    separator: str
    rows: tuple[Row, ...]


def read_table(path: Path, required: str) -> Table:
    """The table in a text file; rows without any value are left out.

    Args:
        path: UTF-8, or UTF-16 with a byte order mark.
        required: the column that it must have; the separator is the one with which the first line has it.

    Raises:
        PatientValueError: it cannot be read, lacks that column, has a column twice, or a row of another width.
    """
    text = _text(path)
    separator = _separator(text, required)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:  # the line of a record is the one on which it ends
        records = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise PatientValueError(
            f"Line {reader.line_num} of the manifest is not valid CSV ({error}). {_ADVICE}"
        ) from error
    _, header = records[0]
    names = [name.strip() for name in header]
    keys = [name.casefold() for name in names]
    if twice := [key for key, count in Counter(keys).items() if key and count > 1]:
        raise PatientValueError(f"The manifest has the column {twice[0]} more than once. Keep one of them.")
    for line, cells in records[1:]:
        if len(cells) != len(names):
            raise PatientValueError(
                f"Line {line} of the manifest has {plural(len(cells), 'column')}; the header has "
                f"{len(names)}. Correct it."
            )
    filled = [bool(keys[at]) or any(cells[at].strip() for _, cells in records[1:]) for at in range(len(names))]
    columns = [name or f"number {at} (no name)" for at, name in enumerate(names, start=1) if filled[at - 1]]
    rows = [
        Row(line, {key: cell.strip() for key, cell in zip(keys, cells, strict=True) if key})
        for line, cells in records[1:]
    ]
    return Table(tuple(columns), separator, tuple(rows))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PatientValueError(
            f"The manifest cannot be read ({error.strerror}). Check the path after --patients."
        ) from error
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise PatientValueError(f"The manifest is not text in UTF-8. {_ADVICE}") from error
    if "\0" in text:
        raise PatientValueError(f"The manifest is not text in UTF-8. {_ADVICE}")
    return text


def _separator(text: str, required: str) -> str:
    """The separator with which the first line that is not empty has the required column."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    for separator in SEPARATORS:
        if required in (name.strip().casefold() for name in next(csv.reader([first], delimiter=separator), [])):
            return separator
    raise PatientValueError(f"The manifest has no column `{required}`: its first line must name the columns. {_ADVICE}")
