"""What outputs may show: ids in place of names, option names in place of their values.

A slide's name appears only as its id: in the folder's name, result.json, summary.csv, the records of runs, the report
and the user's terminal. Paths and option values appear nowhere, patient values only in result.json and the report; one
that is not understood is also named on the terminal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

DIGEST_CHARS = 8
ID_BYTES_MAX = 120
REDACTED = "<redacted>"
SHOWN_VALUES = frozenset(
    {
        "--engine", "--precision", "--threads", "--mpp", "--tile-um", "--stride-um", "--aggregate", "--fail-on",
        "--device",
    }
)  # fmt: skip
"""Options whose values reveal no patient, file or folder."""


def slide_name(path: PurePath) -> str:
    """The id of a slide that was given none: its file's name without the suffix.

    A number is no suffix: the files of an archive are called 1.2.840.113619.2.5.1 and 1.2.840.113619.2.5.2.
    """
    return printable(path.name if path.suffix[1:].isdecimal() else path.stem)


def printable(text: str) -> str:
    """The text as one line: a line break or a terminal's escape sequence could pretend to be another slide's line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in readable(text))


def readable(text: str) -> str:
    r"""The text as valid Unicode: bytes of a file's name that are not UTF-8 are written as in Pr\xe9l\xe8vement."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def folder_name(slide_id: str, digest: str) -> str:
    """How the folders of a slide's results begin: `<id>-<slide8>`, or `<slide8>` alone if it is the id."""
    short = digest[:DIGEST_CHARS]
    return short if slide_id == short else f"{safe_name(slide_id)}-{short}"


def safe_name(text: str) -> str:
    """A name that every file system accepts and that cannot contain a path."""
    name = re.sub(r"[^\w.\- ]", "_", text).strip(" .")
    short = name.encode()[:ID_BYTES_MAX].decode(errors="ignore").rstrip(" .")
    return short or "slide"


def redacted_argv(argv: Sequence[str], options: Collection[str]) -> list[str]:
    """The command line after the program's name, without values that could name a file or a patient.

    Args:
        argv: the command, then its arguments.
        options: the names of the command's options; anything else that begins with a dash is a value.
    """
    shown = list(argv[:1])
    keep_next = only_values = False
    for argument in argv[1:]:
        name, equals, _ = argument.partition("=")
        only_values |= argument == "--"
        if not only_values and not keep_next and name in options:
            harmless = name in SHOWN_VALUES
            keep_next = harmless and not equals
            shown.append(argument if harmless or not equals else f"{name}={REDACTED}")
        else:
            shown.append(argument if keep_next else REDACTED)
            keep_next = False
    return shown


def without_paths(message: str, path: Path) -> str:
    """A library's message with a path, its folders and its name taken out."""
    real = Path(os.path.realpath(path))
    for part in sorted({str(path), str(real), *map(str, real.parents), path.name}, key=len)[::-1]:
        if len(part) > 1:
            message = message.replace(part, REDACTED)
    return message
