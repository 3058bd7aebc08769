"""Plain images (PNG, JPEG, TIFF, BMP) as slides of one level. They have no scale, so `--mpp` is needed."""

from __future__ import annotations

import struct
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from melanoma_infer.errors import SlideFormatError, SlideUnreadableError
from melanoma_infer.geometry import RectPx, SizePx
from melanoma_infer.records import SlideFacts
from melanoma_infer.slides.base import Closing
from melanoma_infer.slides.refusal import refusal

EIGHT_BIT_MODES = ("L", "P", "RGB", "RGBA")
DAMAGED = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)
"""What Pillow raises on a damaged header or on truncated pixels."""


class ImageReader(Closing):
    """A plain image, held in memory."""

    def __init__(self, path: Path) -> None:
        self._rgba = _pixels(path, path.stat().st_mtime_ns)
        height, width = self._rgba.shape[:2]
        size = SizePx(width, height)
        self.facts = SlideFacts(
            reader="image",
            reader_version=PIL.__version__,
            vendor="",
            size_l0=size,
            level_downsamples=(1.0,),
            level_sizes=(size,),
            scale=None,
            stated_scales=(),
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
                if image.mode not in EIGHT_BIT_MODES:
                    raise SlideFormatError(
                        f"Only 8-bit images can be scored; this one has mode {image.mode}. Convert it to 8-bit RGB."
                    )
                return np.asarray(image.convert("RGBA"))
    except UnidentifiedImageError as error:
        raise refusal(path) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SlideFormatError(
            f"The image has more than {Image.MAX_IMAGE_PIXELS} pixels. Save it as a tiled, pyramidal TIFF."
        ) from error
    except DAMAGED as error:
        raise SlideUnreadableError("The image is damaged or incomplete. Copy it again.") from error
