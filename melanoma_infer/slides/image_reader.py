"""Plain images (PNG, JPEG, TIFF, BMP) as slides of one level. Only TIFFs say their scale; others need `--mpp`."""

from __future__ import annotations

import struct
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.records import SlideFacts
from melanoma_infer.slides.base import Closing
from melanoma_infer.slides.refusal import refusal
from melanoma_infer.slides.scale import tiff_scales
from melanoma_infer.slides.tiff_pages import scale_tags

EIGHT_BIT_MODES = ("L", "LA", "P", "RGB", "RGBA")
OTHER_MODES = {"1": "1-bit", "I": "integers of more than 8 bits", "F": "floating-point numbers", "LAB": "CIELab"}
"""Names of Pillow's modes; the others are their own names."""
ORIENTATION = 274
"""The EXIF tag that says how the picture is turned; 1 is upright."""
DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)
"""What Pillow raises on a damaged header or on truncated pixels."""


class ImageReader(Closing):
    """A plain image, held in memory."""

    def __init__(self, path: Path) -> None:
        self._rgba = _pixels(path, path.stat().st_mtime_ns)
        height, width = self._rgba.shape[:2]
        size = SizePx(width, height)
        stated = tiff_scales(scale_tags(path), size)
        self.facts = SlideFacts(
            reader="image",
            reader_version=PIL.__version__,
            vendor="",
            size_l0=size,
            level_downsamples=(1.0,),
            level_sizes=(size,),
            scale=stated[0].scale if stated else None,
            stated_scales=stated,
            objective_power=None,
            background=(255, 255, 255),
            quickhash=None,
            is_phantom=False,
            bounds=None,
        )

    def read_region(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        """RGBA pixels (h, w, 4) of a rectangle."""
        return self._rgba[rect_level.y : rect_level.bottom, rect_level.x : rect_level.right]


@lru_cache(maxsize=1)
def _pixels(path: Path, mtime_ns: int) -> NDArray[np.uint8]:
    """RGBA (h, w, 4). The last image is cached, because every reading thread opens the slide."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd tags, which does not help the user
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _require_known_format(image)
                return np.asarray(image.convert("RGBA"))
    except UnidentifiedImageError as error:
        raise refusal(path) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SlideFormatError(
            f"The image has more than {Image.MAX_IMAGE_PIXELS} pixels. Save it as a tiled, pyramidal TIFF, in "
            "little-endian byte order."
        ) from error
    except DAMAGED as error:
        raise SlideUnreadableError("The image is damaged or incomplete. Copy it again.") from error


def _require_known_format(image: Image.Image) -> None:
    """Require 8-bit pixels that are grey or RGB, and upright.

    Raises:
        SlideFormatError: they are not.
    """
    if image.mode not in EIGHT_BIT_MODES or has_16_bits(image):
        what = "16-bit" if has_16_bits(image) else OTHER_MODES.get(image.mode, image.mode)
        raise SlideFormatError(
            f"Only 8-bit grey or RGB images can be scored; the pixels of this one are {what}. Convert it to 8-bit RGB."
        )
    if (orientation := _orientation(image)) != 1:
        raise SlideFormatError(
            f"The image is stored turned or mirrored (EXIF orientation {orientation}; only 1 is read). "
            "Save it upright, without that tag."
        )


def has_16_bits(image: Image.Image) -> bool:
    """Whether samples have 16 bits. Pillow opens such colours with 8: only their encoding (RGB;16B) tells."""
    encodings = [str(tile[3]) for tile in image.tile] if isinstance(image, ImageFile.ImageFile) else []
    return any(";16" in word for word in (image.mode, *encodings))


def _orientation(image: Image.Image) -> int:
    """How EXIF says that the picture is turned; 1, upright, if it does not say it or makes no sense."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except DAMAGED:
        return 1
    return orientation if orientation in range(1, 9) else 1
