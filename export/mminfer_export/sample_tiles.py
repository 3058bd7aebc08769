"""Tiles on which a new bundle is compared with its reference: drawn ones, or the user's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import UsageError
from mminfer_export.phantom_tiles import phantom_tiles

TILES = 8
SEED = 5
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class Samples:
    """Tiles uint8 (N, tile_px, tile_px, 3), and their description: "8 drawn tiles"."""

    tiles: NDArray[np.uint8]
    on: str


def samples_for(card: ModelCard, pictures: Sequence[Path] = ()) -> Samples:
    """The user's images, or drawn tiles if there are none.

    Raises:
        UsageError: a picture cannot be read, or has another size than the card's tiles.
    """
    if not pictures:
        return Samples(phantom_tiles(card, TILES, SEED), f"{TILES} drawn tiles")
    tiles = picture_tiles(pictures, card)
    return Samples(tiles, f"{len(tiles)} of the author's tiles")


def picture_tiles(paths: Sequence[Path], card: ModelCard) -> NDArray[np.uint8]:
    """The images in these files and folders as tiles (N, tile_px, tile_px, 3), RGB.

    Raises:
        UsageError: there is none, one cannot be read, or one has another size than the card's tiles.
    """
    from PIL import Image, UnidentifiedImageError

    files: list[Path] = []
    for path in paths:
        inside = [file for file in path.iterdir() if file.suffix.lower() in PICTURES] if path.is_dir() else [path]
        files += sorted(inside)
    if not files:
        raise UsageError(f"No pictures were found among the tiles. Name files or folders of {', '.join(PICTURES)}.")
    tiles = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = np.array(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UsageError(f"{file.name} cannot be read as a picture. Name PNG, JPEG or TIFF files.") from error
        if pixels.shape != (card.tile_px, card.tile_px, 3):
            height, width, _ = pixels.shape
            raise UsageError(
                f"{file.name} is {width} × {height} px, and the card's tiles are {card.tile_px} px square. Cut the "
                "tiles at the card's scale: a resized picture would not be what the model sees."
            )
        tiles.append(pixels)
    return np.stack(tiles)


def checked_tiles(tiles: object, card: ModelCard) -> NDArray[np.uint8]:
    """The user's tiles as an array.

    Raises:
        UsageError: it is not uint8 (N, tile_px, tile_px, 3) with N ≥ 1.
    """
    array = np.asarray(tiles)
    if (
        array.dtype != np.uint8
        or array.ndim != 4
        or array.shape[1:] != (card.tile_px, card.tile_px, 3)
        or not len(array)
    ):
        raise UsageError(
            f"sample_tiles must be uint8 (N, {card.tile_px}, {card.tile_px}, 3), RGB, not {array.dtype} {array.shape}. "
            "Give the pixels as they are in the slide: normalisation is added."
        )
    return array
