"""Tiles of phantom slides, drawn one by one: for setting random bundles, and by default for calibrating int8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.options import Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.styles import TRAINING_STYLES

SLIDE_UM = (9000.0, 6000.0)
FINE_UM = 256.0
"""Side of the finest tiles: half a µm/px at 512 px, where textures fill a tile."""


def phantom_tiles(card: ModelCard, count: int, seed: int) -> NDArray[np.uint8]:
    """Tiles (count, tile_px, tile_px, 3) of `count` phantom slides, half of them with a melanoma.

    Half have the card's side; the others are finer, so that what is set on these tiles also holds where a slide shows
    more detail. The same card and seed give the same tiles.
    """
    rng = np.random.default_rng(seed)
    coarse_um = min(card.tile_side_um, SLIDE_UM[1] / 2)
    fine_um = min(coarse_um, FINE_UM)
    sides_um = (coarse_um, coarse_um, (coarse_um * fine_um) ** 0.5, fine_um)
    tiles = []
    for i in range(count):
        options = Options(style=TRAINING_STYLES[i // 4 % len(TRAINING_STYLES)])
        scene = make_scene(int(rng.integers(2**32)), "melanoma" if rng.random() < 0.5 else "none", SLIDE_UM, options)
        side_um = sides_um[i % 4]
        um_per_px = side_um / card.tile_px
        # A tile that overlaps the section, which crosses the middle of the slide.
        x_um = rng.uniform(0.1 * SLIDE_UM[0], 0.9 * SLIDE_UM[0] - side_um)
        y_um = rng.uniform(0.15 * SLIDE_UM[1], 0.5 * SLIDE_UM[1])
        rect = RectPx(int(x_um / um_per_px), int(y_um / um_per_px), card.tile_px, card.tile_px)
        tiles.append(draw(scene, rect, um_per_px))
    return np.stack(tiles)
