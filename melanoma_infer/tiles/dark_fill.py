"""Dark fill: what a scanner or a converter did not scan and wrote as black, or nearly so.

Fill is dark and smooth. Pigment is dark too, but it is textured, and it is within tissue. So an area is fill if it is
smooth, and reaches the edge of the slide or is darker than tissue can be. Beside fill a brightfield slide is bright;
where it is not, the dark is fluorescence's own background and not fill.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from melanoma_infer.tiles.colour import LUMINANCE_PER_MILLE, largest

DARK_MAX = 64
"""Largest channel of fill: 6 % of the light at a display's gamma; borders of 25 to 40 are common."""
BLACK_MAX = 12
"""Largest channel of what lets no light through. Dense melanin keeps more than that."""
SMOOTH_UM = 40.0
SMOOTH_RANGE = 6
"""Channels of fill differ by at most this within SMOOTH_UM, with sensor noise and JPEG; those of pigment by 10."""
FILL_MIN_MM2 = 0.02
BRIGHT_MEDIAN_MIN = 64.0
"""Median luminance of what is not fill; fluorescence is far below, a field full of dense nuclei above."""


def dark_fill(rgb: NDArray[np.uint8], unread: NDArray[np.bool_], um_per_px: float) -> NDArray[np.bool_]:
    """Which pixels are dark fill: bool (h, w).

    Args:
        rgb: the plane, uint8 (h, w, 3).
        unread: pixels that could not be read; they are never fill.
        um_per_px: the plane's scale.
    """
    high = largest(rgb)
    dark = (high <= DARK_MAX) & ~unread
    core: NDArray[np.bool_] = ndimage.binary_erosion(dark, np.ones((3, 3)), border_value=1)
    if not core.any():  # as on most slides; the filters below took half of the time of finding the tissue
        return core
    window = 2 * max(1, round(SMOOTH_UM / um_per_px / 2)) + 1
    size = (window, window, 1)
    ranges = ndimage.maximum_filter(rgb, size, mode="nearest") - ndimage.minimum_filter(rgb, size, mode="nearest")
    core &= largest(ranges) <= SMOOTH_RANGE
    del ranges  # three times the plane
    fill = ndimage.binary_dilation(_unscanned(core, high, um_per_px), np.ones((window, window)), mask=dark)
    rest = rgb[~fill & ~unread] @ np.array(LUMINANCE_PER_MILLE)
    is_brightfield = rest.size > 0 and np.median(rest) >= 1000 * BRIGHT_MEDIAN_MIN
    return fill if is_brightfield else np.zeros_like(fill)


def _unscanned(core: NDArray[np.bool_], high: NDArray[np.uint8], um_per_px: float) -> NDArray[np.bool_]:
    """The connected parts of smooth dark pixels that no tissue can be."""
    parts, count = ndimage.label(core)
    if not count:
        return core
    numbers = np.arange(1, count + 1)
    mm2 = ndimage.sum_labels(core, parts, numbers) * um_per_px**2 / 1e6
    at_edge = np.isin(numbers, np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    black = ndimage.maximum(high, parts, numbers) <= BLACK_MAX
    chosen = (mm2 >= FILL_MIN_MM2) & (at_edge | black)
    unscanned: NDArray[np.bool_] = np.concatenate([[False], chosen])[parts]
    return unscanned
