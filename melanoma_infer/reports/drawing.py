"""What all pictures share: the colours of evidence, the other colours, the font, and PNG.

Evidence is shown on one scale from 0 to 1, the same for every slide and every model. Its colours run from light to dark
through green-blue, which stained tissue does not contain; the order survives in grey and for colour-blind readers.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

INK = (27, 35, 40)
QUIET = (84, 96, 104)
LINE = (198, 205, 210)
WHITE = (255, 255, 255)
TISSUE_TINT = (228, 190, 208)
"""The colour of tissue under the ramp in a key that explains heat on tissue."""
HEAT_OPACITY = 0.40
"""How opaque the strongest heat is over a slide, so that the tissue under it stays readable."""
MAP_OPACITY = 0.70
"""How opaque the strongest evidence is in a tile's map. The tile is grey there, and is also shown by itself."""

_ANCHORS = (
    (0.00, (240, 246, 222)),
    (0.15, (206, 231, 196)),
    (0.30, (147, 209, 178)),
    (0.50, (62, 170, 164)),
    (0.70, (14, 124, 144)),
    (0.85, (6, 86, 118)),
    (1.00, (2, 50, 88)),
)
"""Lightness falls monotonically, from 96 to 20 (CIELAB)."""


RAMP = np.round(
    np.column_stack(
        [
            np.interp(np.linspace(0, 1, 256), [place for place, _ in _ANCHORS], [colour[i] for _, colour in _ANCHORS])
            for i in range(3)
        ]
    )
).astype(np.uint8)
"""Colours of evidence, uint8 (256, 3), from 0 to 1."""


def steps_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Evidence in 0–1 as one of the ramp's 256 steps; NaN counts as 0."""
    return np.asarray(np.round(np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * 255).astype(np.uint8))


def colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours uint8 (…, 3) of evidence (…,) in 0–1; NaN counts as 0."""
    return np.asarray(RAMP[steps_of(values)])


def opacity(values: NDArray[Any], strongest: float) -> NDArray[np.float64]:
    """How much heat hides what is below it: 0 at 0, rising steeply at first (a square root); NaN counts as 0."""
    return np.asarray(strongest * np.sqrt(np.clip(np.nan_to_num(values, nan=0.0), 0, 1)))


def colours_on_tissue(values: NDArray[Any]) -> NDArray[np.float64]:
    """Colours (n, 3) in 0–255 of evidence (n,) as they look on tissue: what a key shows."""
    part = opacity(values, HEAT_OPACITY)[:, None]
    return colours(values) * part + np.array(TISSUE_TINT) * (1 - part)


def with_palette(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    """A picture (h, w) of indices into a palette (n, 4) of RGBA: small as a PNG."""
    picture = Image.fromarray(indices)
    picture.putpalette(palette.tobytes(), "RGBA")
    return picture


def font(size: int) -> Any:
    """Pillow's built-in font, the same on every machine; it has plain letters only."""
    return ImageFont.load_default(size)


def png(picture: Image.Image, *, has_slide: bool = False) -> bytes:
    """The picture as PNG; the same picture gives the same bytes.

    Args:
        picture: drawn.
        has_slide: it shows the slide, in which nothing repeats: looking for repeats made it 3 % smaller in twice the
            time.
    """
    content = io.BytesIO()
    picture.save(content, "PNG", **({"compress_type": zlib.Z_RLE} if has_slide else {}))
    return content.getvalue()
