"""overlay.png: the slide, heat in cells of their true size, outlines of regions, hatching where nothing is known.

Where the numbers mean nothing, neither heat nor outlines are drawn.
"""

from __future__ import annotations

from melanoma_infer.reports import words
from melanoma_infer.reports.drawing import HEAT_OPACITY, png
from melanoma_infer.reports.frame import frame_of
from melanoma_infer.reports.layers import draw_outlines, hatch_layer, hatched, heat_layer, slide_layer
from melanoma_infer.reports.picture_key import with_key, without_view
from melanoma_infer.result import SlideResult


def render(result: SlideResult) -> bytes:
    """A PNG of at most about 1600 px; the same result gives the same bytes."""
    view = result.view
    if view is None:
        return without_view()
    frame = frame_of(result, view)
    kinds = hatched(result, view, frame)
    picture = slide_layer(view, frame).convert("RGBA")
    meaningful = words.means_nothing(result) is None
    if meaningful:
        picture.alpha_composite(heat_layer(view, frame, HEAT_OPACITY).convert("RGBA"))
    picture.alpha_composite(hatch_layer(kinds, frame).convert("RGBA"))
    picture = picture.convert("RGB")
    if meaningful:
        draw_outlines(picture, result.regions, frame)
    return png(with_key(picture, result, frame, kinds, on_slide=True), has_slide=True)
