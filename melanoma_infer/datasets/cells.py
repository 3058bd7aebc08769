"""The cells of a row: texts that mean a number, a word or a class; one that cannot be understood is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.labels import SPLITS, LabelledTile, Split, known_labels
from melanoma_infer.errors import DatasetError
from melanoma_infer.patients.numbers import decimal
from melanoma_infer.patients.table import Row
from melanoma_infer.patients.vocabulary import is_missing, word_of

Value = TypeVar("Value")
BRESLOW_MM_MAX = 100.0
"""No melanoma of the skin is known to be as thick. A higher number is in µm."""


def fault(file: str, line: int, column: str, problem: str) -> DatasetError:
    """The error of a cell."""
    return DatasetError(f"Line {line} of {file}, column {column}: {problem}")


class Cells:
    """The cells of one row.

    Args:
        file: what errors call the file.
        row: the row.
    """

    def __init__(self, file: str, row: Row) -> None:
        self._file, self._row = file, row

    def text(self, column: str) -> str:
        """As written; empty if there is no such column."""
        return self._row.cells.get(column, "")

    def label(self, card: ModelCard) -> str:
        """The card's spelling of the class; as written if it is none of them."""
        text = self.text("class")
        return word_of(text, known_labels(card)) or text

    def tile(self, card: ModelCard, *, tile: str, um_per_px: float | None) -> LabelledTile:
        """The row as one of tiles.csv.

        Args:
            card: says which classes and patient fields there are.
            tile: the path of its picture in the data set.
            um_per_px: the scale, if the cell is blank.
        """
        stated = self._parsed("um_per_px", _number, "µm per pixel")
        scale = um_per_px if stated is None else stated
        if scale is None:
            raise self.fault("um_per_px", "it is blank. Give µm per pixel.")
        return LabelledTile(
            tile=tile,
            slide=self.text("slide"),
            case_id=self.text("case_id"),
            x_l0=self._parsed("x_l0", _whole, "a whole number of pixels, or nothing"),
            y_l0=self._parsed("y_l0", _whole, "a whole number of pixels, or nothing"),
            um_per_px=scale,
            label=self.label(card),
            breslow_mm=self.breslow_mm(),
            surface_in_tile=self._parsed("surface_in_tile", _yes_or_no, "yes, no, or nothing"),
            values={field.name: self.text(field.name) for field in card.patient_fields},
            outcome=self.outcome(),
            split=self.split(),
            mask=self.text("mask") or None,
        )

    def split(self) -> Split | None:
        """The split; None if the cell is blank."""
        return self._parsed("split", _split, f"{', '.join(SPLITS)}, or nothing in any row")

    def outcome(self) -> bool | None:
        """Whether the outcome occurred; None if the cell is blank."""
        return self._parsed("outcome", _yes_or_no, "yes, no, or nothing")

    def breslow_mm(self) -> float | None:
        """A thickness; None if the cell is blank."""
        depth = self._parsed("breslow_mm", _number, "a thickness in mm, or nothing")
        if depth is not None and (problem := breslow_problem(depth)):
            raise self.fault("breslow_mm", problem)
        return depth

    def fault(self, column: str, problem: str) -> DatasetError:
        """The error of a cell of this row."""
        return fault(self._file, self._row.line, column, problem)

    def _parsed(self, column: str, parse: Callable[[str], Value | None], allowed: str) -> Value | None:
        if is_missing(text := self.text(column)):
            return None
        if (value := parse(text)) is None:
            raise self.fault(column, f"{text!r} is not allowed. Give {allowed}.")
        return value


def breslow_problem(depth_mm: float) -> str | None:
    """Why a number is no Breslow thickness; None if it is."""
    if 0 < depth_mm <= BRESLOW_MM_MAX:
        return None
    return f"{depth_mm:g} is no thickness above 0 and up to {BRESLOW_MM_MAX:g} mm. Correct it, or leave it out."


def _split(text: str) -> Split | None:
    word = word_of(text, SPLITS)
    return next((split for split in SPLITS if split == word), None)


def _whole(text: str) -> int | None:
    value = decimal(text)
    return int(value) if value.is_integer() else None


def _number(text: str) -> float | None:
    return None if math.isnan(value := decimal(text)) else value


def _yes_or_no(text: str) -> bool | None:
    word = word_of(text, ("yes", "no"))
    return None if word is None else word == "yes"
