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


class Move(NamedTuple):
    """Mirrored or not, turned by `quarter` right angles, then by `angle` (radians) and magnified by `scale`."""

    mirrored: bool = False
    quarter: int = 0
    angle: float = 0.0
    scale: float = 1.0

    def of(self, picture: Image.Image) -> Image.Image:
        """A picture moved so."""
        if self.mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if (turn := RIGHT_ANGLES[self.quarter]) is not None:
            picture = picture.transpose(turn)
        return picture if (self.angle, self.scale) == (0, 1) else turned(picture, self.angle, self.scale)

    @property
    def depth_factor(self) -> float:
        """What a depth in the picture is multiplied by: NaN where it is no longer known."""
        side = self.scale * (abs(math.cos(self.angle)) + abs(math.sin(self.angle)))
        return self.scale if (self.angle, self.scale) == (0, 1) or side <= KEPT_SIDE else math.nan


STILL = Move()


class Varied(NamedTuple):
    """A varied tile uint8 (H, W, 3), and how it was moved."""

    pixels: NDArray[np.uint8]
    move: Move = STILL


def varied(tile: Image.Image, rng: np.random.Generator, settings: TrainingSettings) -> Varied:
    """The tile mirrored, turned, scaled and recoloured at random."""
    # Always the same number of draws, so that no setting changes what another one gives.
    quarter, mirrored, free = rng.integers(4), rng.random() < 0.5, rng.random() < settings.free_share
    angle = math.radians(rng.uniform(-settings.angle_deg, settings.angle_deg))
    scale = settings.scale ** rng.uniform(-1, 1)
    move = Move(mirrored, int(quarter), *((angle, scale) if free else ()))
    return Varied(np.asarray(move.of(recoloured(tile, rng, settings))), move)


def turned(tile: Image.Image, angle: float, scale: float) -> Image.Image:
    """The tile turned by `angle` in radians (anticlockwise as seen) and magnified by `scale` about its centre.

    What comes in from outside is mirrored at the edges: a plain colour would look like a surface.
    """
    half = tile.width / 2
    reach = (abs(math.cos(angle)) + abs(math.sin(angle))) / scale
    border = min(max(0, math.ceil(half * (reach - 1)) + 1), tile.width - 1)
    pixels = np.asarray(tile)
    beside = ((border, border), (border, border), (0, 0))[: pixels.ndim]
    wide = Image.fromarray(np.pad(pixels, beside, mode="symmetric"))
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
