"""The read plan: from which pyramid level a tile is read, and how it is resized.

It is part of what a model was trained on, so it follows from the card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import Scale
from melanoma_infer.records import SlideFacts
from melanoma_infer.tiles.block_means import BLOCK_PX_MAX
from melanoma_infer.tiles.grid import Geometry


@dataclass(frozen=True)
class ReadPlan:
    """How the pixels of every tile are made."""

    level: int
    downsample: float
    """Width of a level pixel in level-0 pixels."""
    block_px: int
    """Side of the blocks averaged before the bilinear resize, in level pixels; 1 means none."""
    tile_px: int
    equalised: bool


def read_plan(facts: SlideFacts, scale: Scale, geometry: Geometry, card: ModelCard) -> ReadPlan:
    """The lowest pyramid level that is not coarser than needed (or level 0), and the card's resize from there.

    Raises:
        UsageError: the tiles are so coarse for that level that no block mean would be exact.
    """
    level = 0
    if card.read_from == "pyramid":
        fine_enough = [
            i for i, downsample in enumerate(facts.level_downsamples)
            if downsample * scale.mean_um <= geometry.um_per_px * (1 + 1e-9)
        ]  # fmt: skip
        level = max(fine_enough, default=0)
    downsample = facts.level_downsamples[level]
    shrink = geometry.um_per_px / (scale.mean_um * downsample)
    block_px = max(1, math.floor(shrink / 2)) if card.resize == "reduce-bilinear" else 1
    if block_px > BLOCK_PX_MAX:
        raise UsageError(
            f"The tiles are too coarse for this slide: {shrink:.0f} of its pixels would make one of the model's; the "
            f"limit is {2 * BLOCK_PX_MAX + 1}. Choose a smaller --tile-um, or a slide with more pyramid levels."
        )
    return ReadPlan(level, downsample, block_px, geometry.tile_px, card.histogram_equalisation)
