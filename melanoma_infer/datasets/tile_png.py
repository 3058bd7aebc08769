"""Tiles as PNG files, which say whether they were drawn: no copy of a phantom becomes tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from melanoma_infer.phantom.mark import GENERATOR
from melanoma_infer.slides.phantom_mark import PHANTOM_MARK

LEVEL = 2
"""Compression: the usual 6 took half as long again for drawn tiles, and the files were no smaller."""


def save_tile(path: Path, pixels: NDArray[np.uint8], *, is_phantom: bool) -> None:
    """Write a tile (h, w, 3), with the phantoms' mark if it was drawn."""
    said = PngInfo()
    if is_phantom:
        said.add_text(PHANTOM_MARK, GENERATOR)
    Image.fromarray(pixels).save(path, compress_level=LEVEL, pnginfo=said)


def save_mask(path: Path, inside: NDArray[np.bool_]) -> None:
    """Write where a tile shows a lesion, bool (h, w), with one bit a pixel."""
    Image.fromarray(inside).save(path, optimize=True)


def mask_name(tile: str) -> str:
    """The name of a tile's mask, beside the tile."""
    return f"{tile.removesuffix('.png')}-lesion.png"


def is_phantom_tile(path: Path) -> bool:
    """Whether a picture has the phantoms' mark; it must be one that can be opened."""
    with Image.open(path) as image:
        return PHANTOM_MARK in image.info
