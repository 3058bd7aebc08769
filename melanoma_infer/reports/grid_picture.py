"""grid.png: the tissue that was found and the tiles that would be scored, on the slide at low resolution."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from melanoma_infer.accumulator import SlidePlan
from melanoma_infer.tissue import Plane

SIDE_PX_MAX = 1600
TISSUE_COLOUR = (0, 110, 180)
INK_COLOUR = (200, 0, 120)
TILE_COLOUR = (20, 20, 20)


def render(plane: Plane, plan: SlidePlan) -> bytes:
    """A PNG: the plane, the tissue's outline in blue, excluded ink in magenta, kept tiles in black."""
    zoom = min(4.0, SIDE_PX_MAX / max(plane.unread.shape))
    image = Image.fromarray(_outlined(plane.rgb, plan))
    size = (max(1, round(image.width * zoom)), max(1, round(image.height * zoom)))
    image = image.resize(size, Image.Resampling.NEAREST if zoom > 1 else Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    for tile in plan.tiles:
        rect = tile.rect_l0
        corners = [edge / plane.px_l0 * zoom for edge in (rect.x, rect.y, rect.right, rect.bottom)]
        draw.rectangle(corners, outline=TILE_COLOUR, width=2)
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def _outlined(
    rgb: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], plan: SlidePlan
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The plane with the borders of tissue and ink drawn in."""
    drawn = rgb.copy()
    for mask, colour in ((plan.tissue.mask, TISSUE_COLOUR), (plan.tissue.ink, INK_COLOUR)):
        drawn[mask & ~ndimage.binary_erosion(mask)] = colour
    return drawn
