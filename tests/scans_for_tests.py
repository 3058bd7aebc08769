"""A slide in memory, and a scanner that sends it in strips."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from melanoma_infer.geometry import RectPx

Rgb = NDArray[np.uint8]
SCALE_UM = (0.5, 0.504)


def section(width: int = 2100, height: int = 1700, seed: int = 3) -> Rgb:
    """Skin on a bright background: a section with holes of all sizes, specks, dust, and a dark lesion."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), (240, 238, 241), np.float64)
    inside = ((x - 0.45 * width) / (0.36 * width)) ** 2 + ((y - 0.5 * height) / (0.33 * height)) ** 2 < 1
    tone = ndimage.gaussian_filter(rng.normal(size=(height, width)), 25) * 800
    pixels[inside] = np.array((214, 150, 190)) + tone[inside, None]
    for _ in range(25):
        cx, cy, r = rng.integers(0, width), rng.integers(0, height), rng.integers(6, 110)
        disc = (x - cx) ** 2 + (y - cy) ** 2 < r**2
        pixels[disc] = rng.choice([(240, 239, 240), (205, 120, 170), (120, 60, 110), (236, 226, 232)])
    lesion = (x - 0.4 * width) ** 2 + (y - 0.45 * height) ** 2 < (0.09 * width) ** 2
    pixels[lesion] = (110, 55, 105)
    pixels += rng.normal(scale=5, size=pixels.shape)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def strips(width: int, height: int, seed: int, *, across: int = 3, down: int = 5, overlap: int = 90) -> list[RectPx]:
    """Uneven strips in any order that overlap by up to `overlap` pixels and cover everything."""
    rng = np.random.default_rng(seed)

    def cuts(length: int, parts: int) -> list[tuple[int, int]]:
        inner = sorted(rng.choice(np.arange(1, length), parts - 1, replace=False).tolist())
        edges = [0, *inner, length]
        more = rng.integers(0, overlap + 1, (parts, 2)).tolist()
        return [
            (max(0, a - before), min(length, b + after))
            for (a, b), (before, after) in zip(pairwise(edges), more, strict=True)
        ]

    rects = [
        RectPx(left, top, right - left, bottom - top)
        for top, bottom in cuts(height, down)
        for left, right in cuts(width, across)
    ]
    return [rects[at] for at in rng.permutation(len(rects))]


def frames(pixels: Rgb, rects: list[RectPx]) -> Iterator[tuple[Rgb, int, int]]:
    """The arguments of `push` for parts of a slide."""
    for rect in rects:
        yield pixels[rect.y : rect.bottom, rect.x : rect.right], rect.x, rect.y
