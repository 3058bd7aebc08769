"""A mask image that a user brings: where it is neither black (zero) nor transparent is tissue."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import SizePx
from melanoma_infer.slides.image_reader import DAMAGED, has_16_bits

ASPECT_TOLERANCE = 1.02
NUMBERS = ("1", "L", "I", "F", "I;16", "I;16B")
"""Pillow's modes of one number a pixel. Converted to 8 bits, a label of 1 or a share of 0.9 would be lost."""
INVERTED_SHARE = 0.75
"""A mask that marks this share of the background, but not of the tissue, is taken for inverted. One half of a slide has
about half of each, and a mask that leaves out artefacts has nearly all of both."""
NEXT_STEP = "Give a mask that is white (or a label) on tissue and black elsewhere, without transparency."


def read_mask(path: Path, shape: tuple[int, ...], size_l0: SizePx) -> NDArray[np.bool_]:
    """The mask resized to a plane of this shape (h, w), nearest pixel.

    Tissue is where any colour, or the number, is not zero and alpha is not zero.

    Raises:
        UsageError: it cannot be read, its aspect ratio is not the slide's, it holds several pictures, or it does not
            say what is tissue.
    """
    try:
        with Image.open(path) as image:
            _require_one_picture(image)
            tissue = _is_tissue(image)
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise UsageError("The image given with --tissue cannot be read. Give a PNG mask, `auto` or `all`.") from error
    height, width = tissue.shape
    if abs(math.log(width * size_l0.height / (height * size_l0.width))) > math.log(ASPECT_TOLERANCE):
        raise UsageError(
            f"The mask given with --tissue has {width} × {height} px; its aspect ratio is not that of "
            f"the slide, {size_l0.width} × {size_l0.height} px. Give a mask of the whole slide."
        )
    if tissue.all():
        raise UsageError(
            "The mask given with --tissue marks the whole slide: nothing in it is black or transparent. "
            "Make the background black, or give `--tissue all`."
        )
    return np.asarray(Image.fromarray(tissue).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def require_not_inverted(mask: NDArray[np.bool_], found: NDArray[np.bool_]) -> None:
    """Require that a mask does not mark the background in place of the tissue that was found by colour.

    Raises:
        UsageError: it marks at least INVERTED_SHARE of the background and less than that of the tissue.
    """
    if not found.any() or found.all():
        return
    tissue, background = float(mask[found].mean()), float(mask[~found].mean())
    if tissue < INVERTED_SHARE <= background:
        raise UsageError(
            f"The mask given with --tissue marks {background:.0%} of the background and {tissue:.0%} of the tissue "
            "found by colour: it seems to be inverted. Tissue is where a mask is neither black nor transparent. Invert "
            "it; if it is right, make its background black."
        )


def _require_one_picture(image: Image.Image) -> None:
    """Require that all pages after the first are smaller copies of it, which a pyramidal TIFF has.

    Raises:
        UsageError: one is not.
    """
    first, pages = SizePx(*image.size), getattr(image, "n_frames", 1)
    for page in range(1, pages):
        image.seek(page)
        off_px = abs(image.height - image.width * first.height / first.width)  # sides are whole pixels
        if image.width >= first.width or off_px > 1:
            raise UsageError(
                f"The mask given with --tissue holds {pages} pictures, and number {page + 1} ({image.width} × "
                f"{image.height} px) is no smaller level of the first ({first.width} × {first.height} px). "
                "Save the right one as a PNG of its own."
            )
    if pages > 1:
        image.seek(0)


def _is_tissue(image: Image.Image) -> NDArray[np.bool_]:
    """Where an image shows tissue: bool (h, w).

    Raises:
        UsageError: it holds numbers that are no mask, is a JPEG or of 16-bit colours, or is black and transparent
            throughout.
    """
    if image.format == "JPEG":  # its artefacts around an edge are not black, and would be tissue
        raise UsageError(
            f"The mask given with --tissue is a JPEG, whose edges are not exact. Save it as PNG. {NEXT_STEP}"
        )
    if image.mode in NUMBERS and "transparency" not in image.info:
        values = np.asarray(image)
        if not np.isfinite(values).all() or values.min() < 0:
            raise UsageError(f"The mask given with --tissue holds numbers below 0, or none at all (NaN). {NEXT_STEP}")
        labelled: NDArray[np.bool_] = values != 0
        return labelled
    if has_16_bits(image):
        raise UsageError(f"The mask given with --tissue has colours of 16 bits, which cannot be read. {NEXT_STEP}")
    rgba = np.asarray(image.convert("RGBA"))
    visible = rgba[..., 3] > 0
    tissue: NDArray[np.bool_] = visible & (rgba[..., :3] > 0).any(axis=2)
    if not visible.all() and not tissue.any():  # perhaps tissue is what is drawn, in black on transparent
        raise UsageError(f"All that the mask given with --tissue shows is black or transparent. {NEXT_STEP}")
    return tissue
