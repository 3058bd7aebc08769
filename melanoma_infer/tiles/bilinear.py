"""Pillow's bilinear resize, fast and with the same bytes under every version of Pillow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def bilinear(pixels: NDArray[np.uint8], side: int, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """A part of an image, resized: RGB, uint8 (side, side, 3).

    Pillow resizes in two passes with 8 bits between them, so their order shows by one level in places, and it is the
    version's: from 12.2 on some shapes begin with the rows. Two calls, each with one pass to do, begin with the columns
    under every version.

    Args:
        pixels: uint8 (h, w, 3), or (h, w, 4), of which the fourth byte is ignored: Pillow keeps four bytes a pixel, and
            packing three of them out of a reader's RGBA took nearly half of the resize; computing the fourth, a sixth.
        side: of the result.
        box: left, top, right and bottom of the part, in pixels, with fractions.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    if pixels.shape[2] == 4:
        image = Image.frombytes("RGB", (width, height), np.ascontiguousarray(pixels), "raw", "RGBX")
    else:
        image = Image.fromarray(pixels)
    across = image.resize((side, height), Image.Resampling.BILINEAR, box=(left, 0, right, height))
    down = across.resize((side, side), Image.Resampling.BILINEAR, box=(0, top, side, bottom))
    # Packed from four bytes a pixel, without an image of three bytes between: with one, the resize took 4 to 9 % more.
    return np.frombuffer(down.tobytes("raw", "RGB"), np.uint8).reshape(side, side, 3).copy()
