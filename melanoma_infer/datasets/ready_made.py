"""Ready-made tiles → a data set: a CSV file that names them, folders named by class, or tiles with masks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_infer.card import ModelCard
from melanoma_infer.datasets.cells import Cells
from melanoma_infer.datasets.checks import SplitCell, require_whole_split, scale_problem, tile_problems
from melanoma_infer.datasets.class_names import ClassNames
from melanoma_infer.datasets.labels import MALIGNANT, LabelledTile, no_lesion
from melanoma_infer.datasets.tile_png import is_phantom_tile
from melanoma_infer.errors import DatasetError, PatientValueError, UsageError
from melanoma_infer.patients.slide_path import slide_path
from melanoma_infer.patients.table import read_table
from melanoma_infer.runtime.privacy import safe_name

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
WHITE_MIN = 128
"""A mask's pixel belongs to the lesion from this grey on: JPEG blurs black and white."""
GREY, GREY_MAX = (32, 223), 0.3
"""A mask may have so many pixels that are neither black nor white: one with more is a photograph. Masks that were
resized and saved as JPEG have up to 15 %."""
MASKED_MIN = 0.5
"""Share of a tile above which it shows the lesion; with less than that, but more than nothing, it is left out."""
Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class ReadyTile:
    """A tile of the user's and its row; `tile` in the row is where its PNG will be."""

    row: LabelledTile
    pixels: Rgb
    is_phantom: bool = False
    """Whether its file says that it was drawn."""
    lesion: NDArray[np.bool_] | None = None
    """(tile_px, tile_px), where it shows a lesion; None if that is not known, or if it shows none."""


def tiles_of_table(path: Path, card: ModelCard, *, um_per_px: float | None) -> Iterator[ReadyTile]:
    """The tiles that a CSV file names, with the columns of tiles.csv; `tile`, `case_id` and `class` are enough.

    Args:
        path: paths in it are relative to it.
        card: of the model.
        um_per_px: scale of tiles whose row does not state it.

    Raises:
        DatasetError: a cell or a picture is not usable.
    """
    try:
        table = read_table(path, "tile", path.name)
    except PatientValueError as error:
        raise DatasetError(str(error)) from error
    columns = {name.casefold() for name in table.columns}
    if missing := [name for name in ("case_id", "class") if name not in columns]:
        raise DatasetError(f"{path.name} has no column `{missing[0]}`. It needs tile, case_id and class.")
    if um_per_px is None and "um_per_px" not in columns:
        raise DatasetError(f"{path.name} has no column `um_per_px`. Add it, or give the tiles' scale with --mpp.")
    names, splits = _Names(), []
    for row in table.rows:
        cells = Cells(path.name, row)
        source, label = slide_path(path.parent, cells.text("tile")), cells.label(card)
        tile = cells.tile(card, tile=names.new(label, source.stem), um_per_px=um_per_px)
        for column, problem in tile_problems(tile, card):
            raise cells.fault(column, problem)
        splits.append(SplitCell(path.name, row.line, tile.case_id, tile.split))
        try:
            pixels = picture(source, card.tile_px)
        except DatasetError as error:
            raise cells.fault("tile", str(error)) from error
        lesion = None
        if tile.mask:
            try:
                lesion = _white(picture(slide_path(path.parent, tile.mask), card.tile_px), source.name)
            except DatasetError as error:
                raise cells.fault("mask", str(error)) from error
        yield ReadyTile(tile, pixels, is_phantom_tile(source), lesion)
    require_whole_split(splits)


def tiles_of_folders(
    folder: Path, names: ClassNames, card: ModelCard, *, um_per_px: float, case_from: re.Pattern[str] | None
) -> Iterator[ReadyTile]:
    """The pictures in folders that are named by class.

    Args:
        folder: holds a folder for each class.
        names: says what the folders' names mean.
        card: of the model.
        um_per_px: scale of the tiles.
        case_from: finds the case in a file's name; None: each file is a case.

    Raises:
        DatasetError: there is no picture, one is not usable, or a file's name has no case.
        UsageError: the folder's name is no class, or the scale is not the card's.
    """
    _require_scale(um_per_px, card)
    classes = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    if not classes:
        raise DatasetError(f"{folder.name} holds no folders. Give a folder that has one for each class, or a CSV file.")
    labels = names.labels([path.name for path in classes])
    new = _Names()
    for inside in classes:
        label = labels[inside.name]
        for path in _pictures(inside) if label is not None else ():
            row = _plain_row(new.new(str(label), path.stem), _case(path, case_from), str(label), card, um_per_px)
            yield ReadyTile(row, picture(path, card.tile_px), is_phantom_tile(path))


def tiles_of_masks(
    images: Path, masks: Path, card: ModelCard, *, um_per_px: float, case_from: re.Pattern[str] | None
) -> Iterator[ReadyTile | None]:
    """Squares of the card's size, cut from pictures beside masks of the lesion; None for one that is left out.

    More than half of a square is lesion: it gets the malignant class. None of it: the class without a lesion. Else it
    is left out. What is left at the right and lower edge of a picture is not used.

    Args:
        images: a folder of pictures.
        masks: a folder of masks, white where the lesion is, with the names and sizes of the pictures.
        card: of the model.
        um_per_px: scale of the pictures.
        case_from: finds the case in a file's name; None: each picture is a case.

    Raises:
        DatasetError: a picture or its mask is missing or not usable.
        UsageError: the scale is not the card's.
    """
    _require_scale(um_per_px, card)
    lesion = card.malignant[0] if len(card.malignant) == 1 else MALIGNANT
    by_stem = {path.stem: path for path in _pictures(masks)}
    side, new = card.tile_px, _Names()
    for path in _pictures(images):
        if path.stem not in by_stem:
            raise DatasetError(f"{path.name} has no mask of that name in {masks.name}. Add it, or remove the picture.")
        pixels, mask = _rgb(path), _rgb(by_stem[path.stem])
        if pixels.shape != mask.shape:
            raise DatasetError(f"{path.name} and its mask have different sizes. Give a mask of the picture's size.")
        if min(pixels.shape[:2]) < side:
            raise DatasetError(f"{path.name} is smaller than a tile of {side} px. Remove it, or use another card.")
        inside = _white(mask, path.name)
        for y in range(0, pixels.shape[0] - side + 1, side):
            for x in range(0, pixels.shape[1] - side + 1, side):
                white = inside[y : y + side, x : x + side]
                share = float(white.mean())
                if 0 < share <= MASKED_MIN:
                    yield None
                    continue
                label = lesion if share else no_lesion(card)
                name = new.new(label, f"{path.stem}_x{x}_y{y}")
                row = _plain_row(name, _case(path, case_from), label, card, um_per_px)
                square = pixels[y : y + side, x : x + side]
                yield ReadyTile(row, square, is_phantom_tile(path), white if share else None)


def _white(mask: Rgb, name: str) -> NDArray[np.bool_]:
    """Where a mask is white, (h, w)."""
    brightest = mask.max(axis=2)
    grey = float(((brightest >= GREY[0]) & (brightest <= GREY[1])).mean())
    if grey > GREY_MAX:
        raise DatasetError(
            f"The mask of {name} is {grey:.0%} grey: a mask is black, and white where the lesion is. Give masks of "
            "that kind."
        )
    white: NDArray[np.bool_] = brightest >= WHITE_MIN
    return white


def picture(path: Path, tile_px: int) -> Rgb:
    """The pixels of a tile; it is never resized.

    Raises:
        DatasetError: it cannot be read, or has another size.
    """
    pixels = _rgb(path)
    height, width, _ = pixels.shape
    if (width, height) != (tile_px, tile_px):
        raise DatasetError(
            f"{path.name} has {width} × {height} pixels; the card's tiles have {tile_px} × {tile_px}. Cut the tiles at "
            "the card's size and scale: a resized picture is not what the model will see on a slide."
        )
    return pixels


class _Names:
    """Names for PNG files, by class; no two are the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, label: str, stem: str) -> str:
        """`tiles/<label>/<stem>.png`, with a number where it is taken."""
        first = f"tiles/{safe_name(label)}/{safe_name(stem)}"
        name, number = f"{first}.png", 2
        # Some file systems do not tell a from A.
        while name.casefold() in self._taken:
            name, number = f"{first}-{number}.png", number + 1
        self._taken.add(name.casefold())
        return name


def _plain_row(name: str, case_id: str, label: str, card: ModelCard, um_per_px: float) -> LabelledTile:
    """The row of a tile of which only the class and the case are known."""
    return LabelledTile(
        tile=name,
        slide="",
        case_id=case_id,
        x_l0=None,
        y_l0=None,
        um_per_px=um_per_px,
        label=label,
        breslow_mm=None,
        surface_in_tile=None,
        values={field.name: "" for field in card.patient_fields},
        outcome=None,
        split=None,
    )


def _pictures(folder: Path) -> Sequence[Path]:
    """The pictures in a folder and its folders, sorted; DatasetError if there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.name[0] != ".")
    if not found:
        raise DatasetError(f"{folder.name} holds no pictures ({', '.join(PICTURES)}). Give a folder with tiles.")
    return found


def _case(path: Path, case_from: re.Pattern[str] | None) -> str:
    """The case that a file's name states: the expression's first group, or all that it matches."""
    if case_from is None:
        return path.stem
    match = case_from.search(path.name)
    case = match[1 if case_from.groups else 0] if match else None
    if not case:
        raise DatasetError(f"{path.name}: --case-from {case_from.pattern} finds no case in the name. Correct it.")
    return case


def _require_scale(um_per_px: float, card: ModelCard) -> None:
    if problem := scale_problem(um_per_px, card):
        raise UsageError(f"--mpp: {problem}")


def _rgb(path: Path) -> Rgb:
    """The pixels (h, w, 3) of an opaque picture with 8 bits a channel."""
    if os.path.exists(path) and not os.path.isfile(path):  # a path that is too long is none, either
        raise DatasetError(f"{path.name} is no file. Correct its path, or remove the line.")
    try:
        with Image.open(path) as image:
            mode, opaque = image.mode, True
            if "A" in mode or "transparency" in image.info:
                opaque = image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
            pixels = np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path.name} does not exist. Correct its path, or remove the line.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path.name} cannot be read as a picture. Give PNG, JPEG, TIFF or BMP files.") from error
    if not opaque or mode not in ("RGB", "RGBA", "L", "P", "1"):
        raise DatasetError(f"{path.name} has {mode} pixels or is transparent. Save it with opaque 8-bit RGB pixels.")
    return pixels
