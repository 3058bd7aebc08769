"""Colours of the tissue plane: HSV saturation and hue, pen ink, histograms and Otsu's threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BAND_ROWS = 256
"""Rows of the plane whose colours are computed at once in floating point."""
YCBCR_OFF_MAX, YCBCR_RED_MIN = 6, 40
"""Steps of 255 by which green and blue may be off the middle, and by which red has to be above it."""
LUMINANCE_PER_MILLE = (299, 587, 114)
"""Shares of red, green and blue in a pixel's luminance."""


def bands(height: int) -> Iterator[slice]:
    """The rows of a plane, BAND_ROWS at a time."""
    for y in range(0, height, BAND_ROWS):
        yield slice(y, y + BAND_ROWS)


def by_bands(compute: Callable[[NDArray[np.uint8]], NDArray[Any]], rgb: NDArray[np.uint8]) -> NDArray[Any]:
    """A function of each single pixel (h, w, 3), computed some rows at a time."""
    return np.concatenate([compute(rgb[rows]) for rows in bands(len(rgb))])


def histogram(values: NDArray[Any], counted: NDArray[np.bool_], bins: int) -> NDArray[np.int64]:
    """How often each integer below `bins` occurs among the counted values."""
    found = np.zeros(bins, np.int64)
    for rows in bands(len(values)):
        found += np.bincount(values[rows][counted[rows]], minlength=bins)
    return found


def is_ycbcr(rgb: NDArray[np.uint8], counted: NDArray[np.bool_]) -> bool:
    """Whether most of what is counted has the colour that a grey or white background gets when YCbCr is taken for RGB.

    Brightness is then red, and the two others are in the middle of their range.
    """
    some = rgb[::4, ::4][counted[::4, ::4]]
    if not len(some):
        return False
    red, green, blue = np.median(some, axis=0)
    return bool(red - 128 > YCBCR_RED_MIN and max(abs(green - 128), abs(blue - 128)) <= YCBCR_OFF_MAX)


def ink_coloured(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Green and blue pen. Red ink looks like eosin or blood, and black ink like pigment: both count as tissue."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), 2, 0)
    high, low = _extremes(rgb)
    spread = np.maximum(high - low, 1e-9)
    sector = np.where(
        high == red,
        (green - blue) / spread % 6,
        np.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    hue = np.where(high == low, 0.0, 60 * sector)  # HSV's, in degrees; 0 for grey
    saturation = saturation_of(rgb)
    green_ink = (hue >= 75) & (hue < 180) & (saturation >= 64)
    blue_ink = (hue >= 180) & (hue < 235) & (saturation >= 128)
    coloured: NDArray[np.bool_] = green_ink | blue_ink
    return coloured


def saturation_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """HSV saturation, 0–255."""
    high, low = _extremes(rgb)
    saturation: NDArray[np.uint8] = np.round(255 * (high - low) / np.maximum(high, 1)).astype(np.uint8)
    return saturation


def _extremes(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Each pixel's largest and smallest channel."""
    low: NDArray[np.uint8] = np.minimum(np.minimum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])
    return largest(rgb).astype(np.float64), low


def largest(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each pixel's largest channel. NumPy takes twenty times as long for `max(axis=2)` of three values."""
    high: NDArray[np.uint8] = np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])
    return high


def otsu(counts: NDArray[np.int64]) -> int:
    """Otsu's threshold: the least value of the upper class that maximises the variance between two classes."""
    weights = counts.astype(np.float64)
    below = np.cumsum(weights)[:-1]
    above = weights.sum() - below
    weighted = np.cumsum(weights * np.arange(256))
    possible = (below > 0) & (above > 0)
    if not possible.any():
        return 0
    mean_below = weighted[:-1] / np.maximum(below, 1)
    mean_above = (weighted[-1] - weighted[:-1]) / np.maximum(above, 1)
    variance = np.where(possible, below * above * (mean_above - mean_below) ** 2, -1.0)
    return int(np.argmax(variance)) + 1
