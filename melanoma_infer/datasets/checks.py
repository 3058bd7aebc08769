"""What must be true of a data set before anything is learned from it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.cells import breslow_problem, fault
from melanoma_infer.datasets.labels import (
    MALIGNANT,
    SPLITS,
    LabelledSlide,
    LabelledTile,
    Split,
    is_malignant,
    known_labels,
    no_lesion,
)
from melanoma_infer.errors import DatasetError, PatientValueError
from melanoma_infer.patients.patient import lenient_patient
from melanoma_infer.patients.slide_path import composed
from melanoma_infer.patients.vocabulary import is_missing

TILES, SLIDES = "tiles.csv", "slides.csv"
SCALE_TOLERANCE = 0.05
"""A tile's scale may differ from the card's by so much: scanners of one nominal scale differ by less."""


def require_tiles(folder: Path, tiles: Mapping[int, LabelledTile], card: ModelCard) -> None:
    """Require that every tile's picture fits the card, and that what is said about it fits, too.

    Args:
        folder: of the data set.
        tiles: by their lines in tiles.csv.
        card: says which classes, patient fields, size and scale there are.

    Raises:
        DatasetError: one does not; its line and column are named.
    """
    if not tiles:
        raise DatasetError(f"{TILES} has no row below its header. Add a row for each tile.")
    lines: dict[str, int] = {}
    for line, tile in tiles.items():
        if (first := lines.setdefault(tile.tile, line)) != line:
            raise fault(TILES, line, "tile", f"{tile.tile} is in line {first}, too. Keep one of them.")
        for column, problem in tile_problems(tile, card):
            raise fault(TILES, line, column, problem)
        if wrong := picture_problem(folder / tile.tile, card.tile_px):
            raise fault(TILES, line, "tile", f"{tile.tile} {wrong}")
        if tile.mask and (wrong := mask_problem(folder / tile.mask, card.tile_px)):
            raise fault(TILES, line, "mask", f"{tile.mask} {wrong}")


def require_slides(folder: Path, slides: Mapping[int, LabelledSlide], card: ModelCard) -> None:
    """Require that every slide exists and has a class of the card.

    Raises:
        DatasetError: one does not; its line and column are named.
    """
    lines: dict[str, int] = {}
    for line, slide in slides.items():
        if (first := lines.setdefault(slide.slide, line)) != line:
            raise fault(SLIDES, line, "slide", f"{slide.slide} is in line {first}, too. Keep one of them.")
        named = {"slide": slide.slide, "path": slide.path, "case_id": slide.case_id}
        for column, problem in (*_name_problems(named, "slide"), *_class_problems(slide.label, card)):
            raise fault(SLIDES, line, column, problem)
        if not os.path.exists(folder / slide.path):  # a path that is too long is none, either
            raise fault(SLIDES, line, "path", f"{slide.path} does not exist. Correct the path, or remove the line.")


@dataclass(frozen=True)
class SplitCell:
    """A split that a row states, and where."""

    file: str
    line: int
    case_id: str
    split: Split | None


def require_whole_split(cells: Sequence[SplitCell]) -> None:
    """Require that every row has a split or none has, and that every case is in one split only.

    Raises:
        DatasetError: it is not so; the case and both rows are named.
    """
    blank = next((cell for cell in cells if cell.split is None), None)
    filled = next((cell for cell in cells if cell.split is not None), None)
    if blank and filled:
        raise fault(
            blank.file, blank.line, "split",
            f"it is blank, but line {filled.line} of {filled.file} has {filled.split}. Give "
            f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]} in every row, or in none.",
        )  # fmt: skip
    seen: dict[str, SplitCell] = {}
    for cell in cells:
        # Names from two systems differ in how letters are composed, and in case.
        first = seen.setdefault(composed(cell.case_id).casefold(), cell)
        if first.split != cell.split:
            raise fault(
                cell.file, cell.line, "split",
                f"case {cell.case_id} is in {cell.split} here and in {first.split}{_written(cell, first)} in line "
                f"{first.line} of {first.file}. Keep all tiles and slides of a patient in one split.",
            )  # fmt: skip


def _written(cell: SplitCell, first: SplitCell) -> str:
    """How the case is written elsewhere, if that differs."""
    return "" if cell.case_id == first.case_id else f" as {first.case_id}"


def picture_problem(path: Path, tile_px: int) -> str | None:
    """Why a file is no picture of a tile, as the end of a sentence; None if it is. Only its header is read."""
    return _file_problem(path, tile_px, ("RGB",), "PNG with 8-bit RGB pixels")


def mask_problem(path: Path, tile_px: int) -> str | None:
    """Why a file is no mask of a tile, likewise."""
    return _file_problem(path, tile_px, ("1", "L"), "PNG, black, and white where the lesion is")


def _file_problem(path: Path, tile_px: int, modes: Sequence[str], wanted: str) -> str | None:
    if os.path.exists(path) and not os.path.isfile(path):  # a path that is too long is none, either
        return "is no file. Correct the path, or remove the line."
    try:
        with Image.open(path) as picture:
            kind, size, mode = picture.format, picture.size, picture.mode
    except FileNotFoundError:
        return "does not exist. Correct the path, or remove the line."
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return "cannot be read as a picture. Give a PNG file."
    if size != (tile_px, tile_px):
        return f"has {size[0]} × {size[1]} pixels; the card's tiles have {tile_px} × {tile_px}. Cut it again."
    if kind != "PNG" or mode not in modes:
        return f"is {kind} with {mode} pixels. Save it as {wanted}."
    return None


def tile_problems(tile: LabelledTile, card: ModelCard) -> Iterator[tuple[str, str]]:
    """By column, what is wrong with a tile, apart from its picture."""
    yield from _name_problems({"tile": tile.tile, "case_id": tile.case_id}, "tile")
    if tile.slide:
        yield from _name_problems({"slide": tile.slide}, "tile")
    if not _is_inside(tile.tile):
        yield "tile", f"{tile.tile!r} is not a path inside the data set. Give it relative to its folder, with slashes."
    if tile.mask and tile.label == no_lesion(card):
        yield "mask", f"a tile of class {tile.label} shows no lesion. Leave it blank, or correct the class."
    elif tile.mask and not _is_inside(tile.mask):
        yield "mask", f"{tile.mask!r} is not a path inside the data set. Give it relative to its folder, with slashes."
    if (tile.x_l0 is None) != (tile.y_l0 is None):
        yield "x_l0" if tile.x_l0 is None else "y_l0", "it is blank, but the other coordinate is not. Give both."
    if problem := scale_problem(tile.um_per_px, card):
        yield "um_per_px", problem
    yield from _class_problems(tile.label, card)
    yield from _depth_problems(tile, card)
    yield from _patient_problems(tile.values, card)
    if problem := outcome_problem(tile.label, tile.outcome, card):
        yield "outcome", problem


def _name_problems(named: Mapping[str, str], what: str) -> Iterator[tuple[str, str]]:
    for column, text in named.items():
        if is_missing(text):
            hint = "Give the patient's id: tiles of one patient must share it" if column == "case_id" else "Fill it in"
            yield column, f"it is blank. {hint}, or remove the {what}."
        elif not text.isprintable() or text != text.strip():
            yield column, f"{text!r} has a space at an end, a line break or another control character. Remove it."


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return "\\" not in path and not path.startswith("/") and ".." not in parts and not os.path.isabs(path)


def scale_problem(um_per_px: float, card: ModelCard) -> str | None:
    """Why tiles of that scale are not the card's; None if they are."""
    own = card.tile_side_um / card.tile_px
    if math.isfinite(um_per_px) and abs(um_per_px - own) <= SCALE_TOLERANCE * own:
        return None
    return (
        f"{um_per_px:g} differs from the card's {own:g} µm/px by more than {SCALE_TOLERANCE:.0%}. Cut the tiles at the "
        "card's scale, or use a card for theirs."
    )


def _class_problems(label: str, card: ModelCard) -> Iterator[tuple[str, str]]:
    known = known_labels(card)
    if label not in known:
        yield "class", f"{label!r} is no class of the card. Give {', '.join(known[:-1])} or {known[-1]}."


def _depth_problems(tile: LabelledTile, card: ModelCard) -> Iterator[tuple[str, str]]:
    depth = tile.breslow_mm
    if depth is None:
        if tile.surface_in_tile:
            yield "surface_in_tile", "it is yes, but breslow_mm is blank. Give the thickness, or leave both blank."
        return
    if tile.label in known_labels(card) and not is_malignant(tile.label, card):
        yield (
            "breslow_mm",
            f"{depth:g} mm is the thickness of a melanoma, but the class is {tile.label}. Correct the class, or leave "
            "the thickness blank.",
        )
    if problem := breslow_problem(depth):
        yield "breslow_mm", problem
    diagonal_mm = math.sqrt(2) * card.tile_side_um / 1000
    if tile.surface_in_tile and depth > diagonal_mm * (1 + SCALE_TOLERANCE):
        yield (
            "surface_in_tile",
            f"it is yes, but a thickness of {depth:g} mm is more than the tile's diagonal of {diagonal_mm:.3g} mm. "
            "Give no, or correct the thickness.",
        )


def _patient_problems(values: Mapping[str, str], card: ModelCard) -> Iterator[tuple[str, str]]:
    try:
        _, misread = lenient_patient(values, card.patient_fields)
    except PatientValueError as error:  # a date in place of an age
        column, _, why = str(error).partition(": ")
        misread = {column: why}
    names = {field.name for field in card.patient_fields}
    yield from ((column, why) for column, why in misread.items() if column in names)


def outcome_problem(label: str, outcome: bool | None, card: ModelCard) -> str | None:
    """Why an outcome contradicts a malignant class that says by itself whether it occurred; None if it does not."""
    if card.outcome is None or outcome is None or label not in card.malignant:
        return None
    if outcome == (label in card.outcome.classes):
        return None
    word = "yes" if outcome else "no"
    return (
        f"it is {word}, but the class {label} says the opposite. Correct one of them; a tile of class {MALIGNANT} gets "
        "its class from the outcome."
    )
