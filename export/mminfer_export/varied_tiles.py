"""Tiles that have little in common, to see what range a model's scores have when its operators do not tell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 11
FACTORS = (-100.0, -10.0, 10.0, 100.0)
"""Far outside the range of pixels: a linear layer leaves 0 to 1 there, a sigmoid does not."""

ScoresOf = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[Any]]
"""The model's own scores (N, columns) for N tiles whose normalised values are multiplied by N factors."""


def varied_scores(scores_of: ScoresOf, side: int, *, stretch: bool = True) -> tuple[NDArray[Any], NDArray[Any]]:
    """The scores of varied tiles, and of tiles × FACTORS; without the rows where one overflows.

    Args:
        scores_of: the model's own.
        side: of its tiles.
        stretch: False for a model that takes uint8, and nothing outside the range of pixels: the second has no rows.
    """
    tiles, factors = varied_tiles(side)
    ordinary = scores_of(tiles[factors == 1], factors[factors == 1])
    stretched = scores_of(tiles[factors != 1], factors[factors != 1]) if stretch else ordinary[:0]
    return ordinary[np.isfinite(ordinary).all(1)], stretched[np.isfinite(stretched).all(1)]


def varied_tiles(side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Tiles (N, side, side, 3) and their factors (N,): plain colours, noise, ramps, stripes, and noise × FACTORS."""
    rng = np.random.default_rng(SEED)
    noise = [rng.integers(0, high, (side, side, 3), np.uint8) for high in (64, 128, 255)]
    plain = [np.full((side, side, 3), colour) for colour in (*product((0, 255), repeat=3), (128, 128, 128))]
    stained = [np.full((side, side, 3), colour) for colour in ((230, 150, 190), (110, 60, 140))]
    ramp = np.broadcast_to(np.linspace(0, 255, side)[:, None, None], (side, side, 3))
    stripes = np.broadcast_to(np.arange(side)[None, :, None] % 2 * 255, (side, side, 3))
    ordinary = [*plain, *stained, *noise, 255 - noise[0], ramp, ramp[::-1], ramp.transpose(1, 0, 2), stripes]
    tiles = np.stack([*ordinary, *[noise[-1]] * len(FACTORS)]).astype(np.uint8)
    return tiles, np.array([1.0] * len(ordinary) + list(FACTORS), np.float32)
