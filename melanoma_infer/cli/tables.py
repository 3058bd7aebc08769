"""Tables that fit the terminal: text wraps at spaces, wide rows become blocks, and no number or word is cut.

A number stays on one line with its unit, and so does a command that can be copied. What is wider than the terminal and
has no space, such as a path, is left whole; a sha256 digest is shortened.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from itertools import compress

WIDTH = 80
"""Columns where there is no terminal, and COLUMNS is not set."""
GAP = "  "
TEXT_MIN = 24
"""A column of text is not wrapped to fewer columns than these: blocks are easier to read."""
DIGEST = re.compile(r"[0-9a-f]{64}")
DIGEST_CHARS = 12

WORD = re.compile(r"pip install \S+|`[^`]+`\S*|\S+")
UNITS = frozenset(
    {"µm", "mm", "mm²", "px", "µm/px", "%", "s", "ms", "min", "h", "B", "kB", "MB", "GB", "tiles", "tiles/s", "×"}
)
NUMBER = re.compile(r"[-+±<>≤≥~(]*\d[\d.,:e+×–-]*")
SIGNS = frozenset({"<", ">", "≤", "≥", "±", "×", "="})
"""Belong to the number that follows."""


def terminal_width() -> int:
    """Columns of the terminal, or of the variable COLUMNS."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = (), *, width: int | None = None) -> str:
    """Rows as text in aligned columns; where these cannot fit, one block of "name value" per row.

    Args:
        rows: cells, the same number in each row.
        header: names of the columns; one without a name holds remarks, and an empty one is left out. Without a header
            the first cell is a name.
        width: columns to fit; None for the terminal's.
    """
    width = width or terminal_width()
    used = [any(column) for column in zip(*rows, strict=True)]
    rows, header = [list(compress(row, used)) for row in rows], list(compress(header, used))
    widths = _widths(rows, header, width)
    if widths is not None:
        lines = [_aligned(row, widths) for row in ([header, *rows] if header else rows)]
    elif header:
        lines = [_block(row, header, width) for row in rows]
    else:
        lines = [_wrapped(f"{name}: {' '.join(values)}", width, indent=2) for name, *values in rows]
    return "\n".join(lines)


def _widths(rows: Sequence[Sequence[str]], header: Sequence[str], width: int) -> list[int] | None:
    """The width of each column, the widest ones narrowed until all fit; None where they cannot fit."""
    columns = list(zip(*rows, *([header] if header else []), strict=True))
    bodies = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    widths = [max(map(len, column)) for column in columns]
    least = [max((len(chunk) for cell in column for chunk in _chunks(cell)), default=0) for column in columns]
    least = [
        max(narrow, min(TEXT_MIN, max(map(len, body), default=0))) for narrow, body in zip(least, bodies, strict=True)
    ]
    room = width - len(GAP) * (len(widths) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """The row on as many lines as its tallest cell has."""
    cells = [_wrapped(cell, width).split("\n") for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    lines = (
        GAP.join((cell[i] if i < len(cell) else "").ljust(width) for cell, width in zip(cells, widths, strict=True))
        for i in range(height)
    )
    return "\n".join(line.rstrip() for line in lines)


def _block(row: Sequence[str], header: Sequence[str], width: int) -> str:
    """The row's first cell and its remarks on a line, then "name value" pairs, indented."""
    remarks = " ".join(cell for name, cell in zip(header[1:], row[1:], strict=True) if cell and not name)
    first = _wrapped(f"{row[0]}: {remarks}" if remarks else row[0], width, indent=4)
    pairs = [f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell and name]
    if not pairs:
        return first
    chunks: list[str] = []
    for i, pair in enumerate(pairs):
        text = pair + ("," if i + 1 < len(pairs) else "")
        chunks += [text] if len(text) <= width - 2 else _chunks(text)
    return f"{first}\n{_filled(chunks, width, first='  ', later='    ')}"


def _wrapped(text: str, width: int, indent: int = 0) -> str:
    """The text on lines of at most `width` columns, all but the first indented."""
    if len(text) <= width:
        return text
    return _filled(_chunks(text), width, later=" " * indent)


def _filled(chunks: Sequence[str], width: int, *, first: str = "", later: str = "") -> str:
    lines, line = [], first + chunks[0]
    for chunk in chunks[1:]:
        if len(line) + 1 + len(chunk) <= width:
            line += f" {chunk}"
        else:
            lines.append(line)
            line = later + chunk
    return "\n".join([*lines, line])


def _chunks(text: str) -> list[str]:
    """The words of a text; a number with its unit and a command are one."""
    chunks: list[str] = []
    for word in WORD.findall(text):
        before = chunks[-1] if chunks else ""
        is_unit = NUMBER.fullmatch(before.rpartition(" ")[2]) and word.rstrip(".,;:)") in UNITS
        if is_unit or before in SIGNS:
            chunks[-1] = f"{before} {word}"
        else:
            chunks.append(word)
    return [DIGEST.sub(lambda found: found[0][:DIGEST_CHARS], chunk) for chunk in chunks]
