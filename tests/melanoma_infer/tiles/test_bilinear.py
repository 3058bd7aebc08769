"""The resize against its arithmetic in NumPy: the same bytes under every version of Pillow that is allowed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melanoma_infer.tiles.bilinear import bilinear

BITS = 22
"""Pillow's weights are integers of 22 bits, rounded; each pass ends in 8 bits."""


def weights(size: int, begin: float, end: float, out: int) -> NDArray[np.int64]:
    """(out, size): the triangle of Pillow's bilinear filter, as wide as an output pixel where the image shrinks."""
    begin, length = float(np.float32(begin)), float(np.float32(end) - np.float32(begin))
    scale = length / out
    support = max(scale, 1.0)
    table = np.zeros((out, size), np.int64)
    for x in range(out):
        centre = begin + (x + 0.5) * scale
        first, last = max(0, int(centre - support + 0.5)), min(size, int(centre + support + 0.5))
        near = [max(0.0, 1 - abs((i - centre + 0.5) * (1 / support))) for i in range(first, last)]
        table[x, first:last] = [int(0.5 + weight / sum(near) * (1 << BITS)) for weight in near]
    return table


def columns_first(rgb: NDArray[np.uint8], side: int, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    across = np.einsum("xw,hwc->hxc", weights(width, box[0], box[2], side), rgb.astype(np.int64))
    across = (across + (1 << BITS - 1)) >> BITS
    down = np.einsum("yh,hxc->yxc", weights(height, box[1], box[3], side), across)
    result: NDArray[np.uint8] = ((down + (1 << BITS - 1)) >> BITS).astype(np.uint8)
    return result


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(
    ("height", "width", "side", "box"),
    [
        (64, 64, 64, (0, 0, 64, 64)),
        (65, 65, 64, (0.25, 0.5, 64.25, 64.5)),
        (65, 64, 64, (0, 0.37, 64, 64.37)),  # of this kind Pillow 13 does the rows first
        (129, 80, 64, (3.3, 0.9, 79.6, 128.2)),
        (40, 50, 64, (0.5, 0, 49.5, 40)),
    ],
)
def test_every_byte_is_that_of_columns_then_rows(height, width, side, box, channels):
    pixels = np.random.default_rng(height + channels).integers(0, 256, (height, width, channels), np.uint8)
    resized = bilinear(pixels, side, box)
    assert resized.flags.writeable  # engines may take it without a copy
    assert np.array_equal(resized, columns_first(pixels[..., :3], side, box))


def test_a_view_is_taken():
    height, width = 40, 30
    pixels = np.random.default_rng(1).integers(0, 256, (height, 2 * width, 4), np.uint8)
    view = pixels[:, ::2]
    assert np.array_equal(
        bilinear(view, 16, (0, 0, width, height)),
        bilinear(view.copy(), 16, (0, 0, width, height)),
    )
