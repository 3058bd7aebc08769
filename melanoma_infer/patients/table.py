"""A table that a spreadsheet or a database wrote as text: its encoding and separator are found, its columns named."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from melanoma_infer.errors import PatientValueError
from melanoma_infer.runtime.plural import plural

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_ADVICE = "Save it as CSV in UTF-8, with columns separated by commas, semicolons, tabs or vertical bars."
_STATED = re.compile(r'"?sep=([^\r\n])"?[,;\t| ]*(?=[\r\n]|\Z)', re.IGNORECASE)
"""The line that Excel reads before the header, such as `sep=;`."""
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How .xlsx and .ods files begin, and .xls files."""


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
    separator_stated: bool
    """Whether the first line states the separator (`sep=;`)."""
    rows: tuple[Row, ...]


def read_table(path: Path, required: str, name: str = "the manifest") -> Table:
    """The table in a text file; rows without any value are left out.

    Args:
        path: UTF-8, or UTF-16 with a byte order mark.
        name: what errors call the table, in the middle of a sentence.
        required: the column that it must have. The separator is the one that the first line states (`sep=;`), or the
            one with which the header has this column.

    Raises:
        PatientValueError: it cannot be read, lacks that column, has a column twice, or a row of another width.
    """
    try:
        return _table(path, required)
    except _TableError as fault:
        start = f"The{name[3:]}" if name.startswith("the ") else name
        where = f"Line {fault.line} of {name}" if fault.line else start
        raise PatientValueError(f"{where} {fault}") from fault.__cause__


class _TableError(Exception):
    """What is wrong with a table: the rest of a sentence that begins with its name, and the line."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.line = line


def _table(path: Path, required: str) -> Table:
    text = _text(path)
    stated = _STATED.match(text)
    text = text[stated.end() :] if stated else text  # its line end stays, so that lines are counted right
    separator = _separator(text, required, stated[1] if stated else None)
    records = list(_records(text, separator))
    _, header = records[0]
    names = [name.strip() for name in header]
    keys = [name.casefold() for name in names]
    if twice := [key for key, count in Counter(keys).items() if key and count > 1]:
        raise _TableError(f"has the column {twice[0]} more than once. Keep one of them.")
    for line, cells in records[1:]:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(names):
            raise _TableError(f"has {plural(len(cells), 'column')}; the header has {len(names)}. Correct it.", line)
    filled = [bool(keys[at]) or any(cells[at].strip() for _, cells in records[1:]) for at in range(len(names))]
    columns = [name or f"number {at} (no name)" for at, name in enumerate(names, start=1) if filled[at - 1]]
    rows = [
        Row(line, {key: cell.strip() for key, cell in zip(keys, cells, strict=True) if key})
        for line, cells in records[1:]
    ]
    return Table(tuple(columns), separator, stated is not None, tuple(rows))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _TableError(f"cannot be read ({error.strerror}). Check its path.") from error
    if content.startswith(_WORKBOOKS):
        raise _TableError(f"is a spreadsheet file, not text. {_ADVICE}")
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = None if utf_16 else len((content[: error.start] + b"_").splitlines())
        raise _TableError(f"is not text in UTF-8. {_ADVICE}", line) from error
    if "\0" in text:
        raise _TableError(f"is not text in UTF-8. {_ADVICE}")
    return text


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The lines on which records end, and their cells, without records that have no value.

    Raises:
        _TableError: the text is not valid CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise _TableError(f"is not valid CSV ({error}). {_ADVICE}", reader.line_num) from error


def _separator(text: str, required: str, stated: str | None) -> str:
    """The stated separator, or the one with which the header has the required column."""
    if stated not in (None, *SEPARATORS):
        raise _TableError(f"says that {stated!r} separates its columns. {_ADVICE}", 1)
    for separator in [stated] if stated else SEPARATORS:
        try:
            _, header = next(_records(text, separator), (0, []))
        except _TableError:
            continue
        if required in (name.strip().casefold() for name in header):
            return separator
    where = f"the line below `sep={stated}`" if stated else "its first line"
    raise _TableError(f"has no column `{required}`: {where} must name the columns. {_ADVICE}")
