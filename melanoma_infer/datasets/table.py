"""A data set on disk: tiles.csv, slides.csv and dataset.json in one folder.

A data set is written whole or not at all: dataset.json comes last, and without it there is no data set.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.cells import Cells
from melanoma_infer.datasets.checks import (
    SCALE_TOLERANCE,
    SLIDES,
    TILES,
    SplitCell,
    require_slides,
    require_tiles,
    require_whole_split,
)
from melanoma_infer.datasets.labels import MALIGNANT, SPLITS, LabelledSlide, LabelledTile, Split, known_labels
from melanoma_infer.errors import DatasetError, OutputError, PatientValueError, UsageError
from melanoma_infer.patients.table import Row, read_table
from melanoma_infer.runtime.files import why_not_written, write_atomically
from melanoma_infer.runtime.provenance import VERSION
from melanoma_infer.tolerances import Positive

__all__ = [
    "MALIGNANT", "SPLITS", "Dataset", "LabelledSlide", "LabelledTile", "Split", "read_dataset", "write_dataset",
]  # fmt: skip

FACTS = "dataset.json"
BEFORE_PATIENT = ("tile", "slide", "case_id", "x_l0", "y_l0", "um_per_px", "class", "breslow_mm", "surface_in_tile")
AFTER_PATIENT = ("outcome", "split", "mask")
MAY_LACK = ("mask",)
"""Columns that a table need not have."""
SLIDE_COLUMNS = ("slide", "path", "case_id", "class", "split")
Domain = Literal["tissue", "phantom"]


@dataclass(frozen=True)
class Dataset:
    """A data set, as it was read."""

    folder: Path
    domain: str
    """"tissue" or "phantom": what is learned from phantoms never judges tissue."""
    origin: str
    """Where it is from, in a sentence."""
    tile_px: int
    um_per_px: float
    tiles: tuple[LabelledTile, ...]
    slides: tuple[LabelledSlide, ...]
    """Whole slides with a class; empty if there is no slides.csv."""


class _Facts(BaseModel):
    """dataset.json."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal[1]
    domain: Domain
    origin: Annotated[str, Field(min_length=1)]
    tile_px: int
    um_per_px: Positive
    counts: dict[str, dict[str, int]]
    """Tiles by split and class; the split is "all" if none is given. For people: nothing is computed from it."""
    version: str


def columns_of(card: ModelCard) -> tuple[str, ...]:
    """The columns of tiles.csv for this card.

    Raises:
        UsageError: a patient field of the card has the name of another column.
    """
    names = tuple(field.name for field in card.patient_fields)
    if taken := [name for name in names if name in (*BEFORE_PATIENT, *AFTER_PATIENT)]:
        raise UsageError(f"The card's patient field {taken[0]} has the name of a column of {TILES}. Rename the field.")
    return (*BEFORE_PATIENT, *names, *AFTER_PATIENT)


def write_dataset(
    folder: Path,
    tiles: Iterable[LabelledTile],
    card: ModelCard,
    *,
    domain: str,
    origin: str,
    slides: Iterable[LabelledSlide] = (),
) -> None:
    """Write tiles.csv, slides.csv (if there are slides) and dataset.json beside the tiles' pictures.

    Args:
        folder: holds the pictures.
        tiles: in the order of the rows.
        card: says which patient columns there are, and what is checked.
        domain: "tissue" or "phantom".
        origin: where the data are from, in a sentence for the card's `training_data`.
        slides: whole slides with a class.

    Raises:
        DatasetError: the data set is not one that `read_dataset` accepts; nothing is written.
        UsageError: a patient field of the card has the name of another column.
        OutputError: a file cannot be written.
    """
    # The header is line 1.
    by_line, slides_by_line = dict(enumerate(tiles, start=2)), dict(enumerate(slides, start=2))
    columns = columns_of(card)
    _require_sound(folder, by_line, slides_by_line, card)
    facts = _Facts(
        format=1, domain=cast(Domain, domain), origin=origin, tile_px=card.tile_px, um_per_px=_scale(card),
        counts=class_counts(by_line.values(), card), version=VERSION,
    )  # fmt: skip
    try:
        (folder / FACTS).unlink(missing_ok=True)
        (folder / SLIDES).unlink(missing_ok=True)
        write_atomically(folder / TILES, _csv(columns, (_tile_cells(tile, card) for tile in by_line.values())))
        if slides_by_line:
            write_atomically(folder / SLIDES, _csv(SLIDE_COLUMNS, map(_slide_cells, slides_by_line.values())))
        write_atomically(folder / FACTS, facts.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise OutputError(f"The data set cannot be written: {why_not_written(error)}") from error


def read_dataset(folder: Path, card: ModelCard) -> Dataset:
    """The data set in a folder, after everything in it was compared with the card.

    Columns of tiles.csv that the card does not know are ignored: a model may use fewer patient fields than there are.

    Raises:
        DatasetError: a file is missing or damaged, or a cell contradicts another one or the card.
        UsageError: a patient field of the card has the name of another column.
    """
    facts = _facts(folder)
    if facts.tile_px != card.tile_px or abs(facts.um_per_px - _scale(card)) > SCALE_TOLERANCE * _scale(card):
        raise DatasetError(
            f"{FACTS}: tiles of {facts.tile_px} px at {facts.um_per_px:g} µm/px are not the card's of {card.tile_px} "
            f"px at {_scale(card):g} µm/px. Make the data set again with this card, or use the card that it was made "
            "with."
        )
    tiles = {row.line: _tile(row, card) for row in _rows(folder / TILES, columns_of(card))}
    slides: dict[int, LabelledSlide] = {}
    if (folder / SLIDES).exists():
        slides = {row.line: _slide(row, card) for row in _rows(folder / SLIDES, SLIDE_COLUMNS)}
    _require_sound(folder, tiles, slides, card)
    return Dataset(
        folder,
        facts.domain,
        facts.origin,
        facts.tile_px,
        facts.um_per_px,
        tuple(tiles.values()),
        tuple(slides.values()),
    )


def class_counts(tiles: Iterable[LabelledTile], card: ModelCard) -> dict[str, dict[str, int]]:
    """Tiles by split and class, in their order; the split is "all" if none is given."""
    found: Counter[tuple[str, str]] = Counter((tile.split or "all", tile.label) for tile in tiles)
    return {
        split: {name: found[split, name] for name in known_labels(card) if found[split, name]}
        for split in ("all", *SPLITS)
        if any(split == each for each, _ in found)
    }


def _scale(card: ModelCard) -> float:
    return card.tile_side_um / card.tile_px


def _require_sound(
    folder: Path, tiles: Mapping[int, LabelledTile], slides: Mapping[int, LabelledSlide], card: ModelCard
) -> None:
    require_tiles(folder, tiles, card)
    require_slides(folder, slides, card)
    cells = [SplitCell(TILES, line, tile.case_id, tile.split) for line, tile in tiles.items()]
    cells += [SplitCell(SLIDES, line, slide.case_id, slide.split) for line, slide in slides.items()]
    require_whole_split(cells)


def _facts(folder: Path) -> _Facts:
    try:
        return _Facts.model_validate_json((folder / FACTS).read_bytes())
    except OSError as error:
        raise DatasetError(
            f"{folder.name} has no {FACTS} that can be read ({error.strerror}). `mminfer dataset` makes a data set "
            "from annotated slides or from ready-made tiles."
        ) from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise DatasetError(f"{FACTS}: {where}: {problem['msg']}. Make the data set again.") from error


def _rows(path: Path, columns: Sequence[str]) -> tuple[Row, ...]:
    try:
        table = read_table(path, columns[0], path.name)
    except PatientValueError as error:
        raise DatasetError(str(error)) from error
    present = {name.casefold() for name in table.columns}
    if absent := [name for name in columns if name not in present and name not in MAY_LACK]:
        raise DatasetError(
            f"{path.name} has no column `{absent[0]}`. Add it; leave its cells blank where nothing is known."
        )
    return table.rows


def _tile(row: Row, card: ModelCard) -> LabelledTile:
    cells = Cells(TILES, row)
    return cells.tile(card, tile=cells.text("tile"), um_per_px=None)


def _slide(row: Row, card: ModelCard) -> LabelledSlide:
    cells = Cells(SLIDES, row)
    return LabelledSlide(
        cells.text("slide"), cells.text("path"), cells.text("case_id"), cells.label(card), cells.split()
    )


def _tile_cells(tile: LabelledTile, card: ModelCard) -> list[str]:
    before = (
        tile.tile, tile.slide, tile.case_id, tile.x_l0, tile.y_l0, tile.um_per_px, tile.label, tile.breslow_mm,
        tile.surface_in_tile,
    )  # fmt: skip
    patient = (tile.values.get(field.name) for field in card.patient_fields)
    return [_cell(value) for value in (*before, *patient, tile.outcome, tile.split, tile.mask)]


def _slide_cells(slide: LabelledSlide) -> list[str]:
    return [slide.slide, slide.path, slide.case_id, slide.label, slide.split or ""]


def _cell(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue().encode()
