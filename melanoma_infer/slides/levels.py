"""Which pyramid levels are read, and their downsamples.

Where a file states no downsample, OpenSlide takes the mean of the width's and the height's ratio to level 0. Some
writers pad each level to whole tiles. The ratios then follow from the padding: what is read is elsewhere on the slide,
at another scale. The downsample of such levels is computed here, or they are left out: a finer level gives the same
pixels more slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from melanoma_infer.geometry import SizePx

ROUNDING_PX = 1.0
"""A level's side differs from that of an exact reduction by no more than this, however the writer rounds."""
STEPS = range(2, 17)
"""Reductions from one level to the next that a padded pyramid may have; only 2 and 4 are usual."""


@dataclass(frozen=True)
class Level:
    """A level as OpenSlide describes it; `tile` is 0 × 0 if the size of its tiles is not known."""

    number: int
    size: SizePx
    tile: SizePx
    downsample: float


def usable_levels(levels: Sequence[Level]) -> list[Level]:
    """The levels that can be used, with their true downsample and size; level 0 is always one of them."""
    base, *lower = levels
    right = [level for level in lower if not _is_derived(base.size, level) or _is_reduction(levels, level)]
    if len(right) < len(lower):
        steps = [step for step in STEPS if all(_is_padded(base.size, level, step) for level in lower)]
        if len(steps) == 1:
            right = []
            for level in lower:
                factor = steps[0] ** level.number
                width, height = -(-base.size.width // factor), -(-base.size.height // factor)
                unpadded = SizePx(min(level.size.width, width), min(level.size.height, height))
                right.append(replace(level, size=unpadded, downsample=float(factor)))
    return [base, *right]


def _is_derived(size_l0: SizePx, level: Level) -> bool:
    """Whether a downsample is only the mean of the ratios; formats that state it (MRXS, Philips) have their own."""
    mean = (size_l0.width / level.size.width + size_l0.height / level.size.height) / 2
    return abs(level.downsample - mean) <= 1e-6 * mean


def _is_reduction(levels: Sequence[Level], level: Level) -> bool:
    """Whether both sides are level 0's divided by one whole number, and cannot be so by padding alone.

    Padding makes one whole tile, or the size of a finer level, of several smaller sizes.
    """
    if level.size == level.tile or level.size in [finer.size for finer in levels[: level.number]]:
        return False
    size_l0, factor = levels[0].size, round(level.downsample)
    return all(
        abs(side_l0 / factor - side) <= ROUNDING_PX
        for side_l0, side in ((size_l0.width, level.size.width), (size_l0.height, level.size.height))
    )


def _is_padded(size_l0: SizePx, level: Level, step: int) -> bool:
    """Whether the level has the size of level 0 after equal steps of reduction, padded to whole tiles."""
    factor = step**level.number
    return all(
        tile > 0 and side in {-(-reduced // tile) * tile for reduced in (side_l0 // factor, -(-side_l0 // factor))}
        for side_l0, side, tile in (
            (size_l0.width, level.size.width, level.tile.width),
            (size_l0.height, level.size.height, level.tile.height),
        )
    )
