"""One tile, varied: mirrored, turned, scaled and with another stain, as another slide of the tissue would show it.

Every choice comes from the generator that is passed in, so that a tile looks the same in the same epoch of any run.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_infer.training.settings import TrainingSettings

KEPT_SIDE = 1.1
"""Largest side of the turned and scaled tile, in sides of the picture, for which its depth still counts: 5 % may leave
the picture on each side, and with it the surface or the deepest cell."""
LUMA = np.array([0.299, 0.587, 0.114])
RIGHT_ANGLES = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


class Varied(NamedTuple):
    """A varied tile uint8 (H, W, 3), and what its depth is multiplied by: NaN where it is no longer known."""

    pixels: NDArray[np.uint8]
    depth_factor: float


def varied(tile: Image.Image, rng: np.random.Generator, settings: TrainingSettings) -> Varied:
    """The tile mirrored, turned, scaled and recoloured at random."""
    # Always the same number of draws, so that no setting changes what another one gives.
    quarter, mirrored, free = rng.integers(4), rng.random() < 0.5, rng.random() < settings.free_share
    angle = math.radians(rng.uniform(-settings.angle_deg, settings.angle_deg))
    scale = settings.scale ** rng.uniform(-1, 1)
    tile = recoloured(tile, rng, settings)
    if mirrored:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if (turn := RIGHT_ANGLES[quarter]) is not None:
        tile = tile.transpose(turn)
    if not free:
        return Varied(np.asarray(tile), 1.0)
    side = scale * (abs(math.cos(angle)) + abs(math.sin(angle)))
    return Varied(np.asarray(turned(tile, angle, scale)), scale if side <= KEPT_SIDE else math.nan)


def turned(tile: Image.Image, angle: float, scale: float) -> Image.Image:
    """The tile turned by `angle` in radians (anticlockwise as seen) and magnified by `scale` about its centre.

    What comes in from outside is mirrored at the edges: a plain colour would look like a surface.
    """
    half = tile.width / 2
    reach = (abs(math.cos(angle)) + abs(math.sin(angle))) / scale
    border = min(max(0, math.ceil(half * (reach - 1)) + 1), tile.width - 1)
    wide = Image.fromarray(np.pad(np.asarray(tile), ((border, border), (border, border), (0, 0)), mode="reflect"))
    # From a place in the result to the place in the source, both from the upper left corner.
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    centre = half + border
    matrix = (cos, -sin, centre - half * (cos - sin), sin, cos, centre - half * (sin + cos))
    return wide.transform(tile.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def recoloured(tile: Image.Image, rng: np.random.Generator, settings: TrainingSettings) -> Image.Image:
    """The tile with other gains of its channels, saturation, contrast and brightness: one matrix for them all."""
    gains = 1 + settings.colour * rng.uniform(-1, 1, 3)
    saturation, contrast = 1 + np.array([settings.saturation, settings.contrast]) * rng.uniform(-1, 1, 2)
    shift = 255 * settings.brightness * rng.uniform(-1, 1)
    mean = float(np.asarray(tile.reduce(32)).mean())
    matrix = contrast * (saturation * np.eye(3) + (1 - saturation) * LUMA) * gains
    offset = np.full((3, 1), (1 - contrast) * mean + shift)
    return tile.convert("RGB", tuple(np.hstack([matrix, offset]).ravel().tolist()))
