"""What a training folder keeps: run.json from the start, history.csv of each epoch, training.json at the end."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from melanoma_infer.datasets.table import Dataset
from melanoma_infer.errors import OutputError, UsageError
from melanoma_infer.runtime.files import why_not_written, write_atomically

RUN, TRAINING, LOCK = "run.json", "training.json", ".lock"
ROUNDING = ("threads", "versions.")
DATA_FILES = ("dataset.json", "tiles.csv", "slides.csv")
BLOCK_BYTES = 1 << 20


def digest_of_data(data: Dataset) -> str:
    """sha256 over the tables and every tile's bytes, in the order of the rows."""
    whole = hashlib.sha256()
    present = [name for name in DATA_FILES if (data.folder / name).exists()]
    masks = (tile.mask for tile in data.tiles if tile.mask)
    for name in (*present, *(tile.tile for tile in data.tiles), *masks):
        whole.update(_file_digest(data.folder / name))
    return whole.hexdigest()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Within it, no other training writes to this folder, which is made if need be.

    Raises:
        OutputError: another one does, or the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise OutputError(f"Another training writes to {out.name}. Wait for it, or choose another --out.") from error
    except OSError as error:
        raise OutputError(f"{out.name} cannot be written: {why_not_written(error)}") from error


def begin(out: Path, facts: Mapping[str, Any], *, resume: bool) -> list[str]:
    """Write run.json, or compare with the one that is there: why a resumed training may end with other weights.

    Other versions or another number of cores round otherwise; everything else must be the same.

    Args:
        out: the folder.
        facts: what decides the weights.
        resume: go on with what is there. Nothing is there if a run was killed before it began.

    Raises:
        UsageError: there is a training, and `resume` is not given, or it was started otherwise.
        OutputError: it cannot be written.
    """
    path, whole = out / RUN, json.loads(json.dumps(facts))
    if not path.exists():
        write(path, json.dumps(whole, indent=1).encode())
        return []
    if not resume:
        raise UsageError(f"{out.name} holds a training. Give --resume to go on with it, or choose another --out.")
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{RUN} cannot be read. Train again into another folder.") from error
    changed = sorted(_changes(known, whole))
    rounding = [each for each in changed if each.startswith(ROUNDING)]
    if changed := [each for each in changed if each not in rounding]:
        raise UsageError(
            f"{out.name} holds a training that was started otherwise: {'; '.join(changed[:5])}. Give the same data, "
            "card and options to resume it, or choose another --out."
        )
    return rounding


def _changes(known: Any, asked: Any, name: str = "") -> Iterable[str]:
    """What differs, by name."""
    if isinstance(known, dict) and isinstance(asked, dict):
        for key in known.keys() | asked.keys():
            yield from _changes(known.get(key), asked.get(key), f"{name}.{key}" if name else str(key))
    elif known != asked:
        yield f"{name} was {_short(known)} and is {_short(asked)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}…"


def table_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of the same keys as CSV; an empty cell for None."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def table_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as a Markdown table, numbers to three digits."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row[name]) for name in names) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def write(path: Path, content: bytes) -> None:
    """Write a file whole.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {why_not_written(error)}") from error
