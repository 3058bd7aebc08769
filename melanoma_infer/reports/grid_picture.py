"""grid.png: the tissue that was found, and the tiles that would be scored, drawn on the slide at low resolution."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from melanoma_infer.tiles.plan import SlidePlan

SIDE_PX_MAX = 1600
TISSUE_COLOUR = (0, 110, 180)
INK_COLOUR = (200, 0, 120)
TILE_COLOUR = (20, 20, 20)


def render(plan: SlidePlan) -> bytes:
    """A PNG of the slide: the outline of the tissue in blue, excluded pen ink in magenta, tiles to score in black."""
    tissue = plan.tissue
    blank = np.full((*tissue.mask.shape, 3), 255, np.uint8)
    slide = blank if tissue.thumbnail is None else tissue.thumbnail.copy()
    for mask, colour in ((tissue.mask, TISSUE_COLOUR), (tissue.ink, INK_COLOUR)):
        slide[mask & ~ndimage.binary_erosion(mask)] = colour
    image = Image.fromarray(slide)
    zoom = min(4.0, SIDE_PX_MAX / max(tissue.mask.shape))
    size = (max(1, round(image.width * zoom)), max(1, round(image.height * zoom)))
    image = image.resize(size, Image.Resampling.NEAREST if zoom > 1 else Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    for tile in plan.tiles:
        rect = tile.rect_l0
        corners = [edge / tissue.px_l0 * zoom for edge in (rect.x, rect.y, rect.right, rect.bottom)]
        draw.rectangle(corners, outline=TILE_COLOUR, width=2)
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()
