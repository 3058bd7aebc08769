"""heatmap.png: the evidence alone, on white, in cells of their true size; a thin line marks the edge of the tissue."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from melanoma_infer.reports.drawing import LINE, RAMP, png
from melanoma_infer.reports.frame import frame_of, sampled
from melanoma_infer.reports.layers import hatch_layer, hatched, heat_steps
from melanoma_infer.reports.picture_key import with_key, without_view
from melanoma_infer.result import SlideResult


def render(result: SlideResult) -> bytes:
    """A PNG of at most about 1600 px; the same result gives the same bytes."""
    view = result.view
    if view is None:
        return without_view()
    frame = frame_of(result, view)
    steps, known = heat_steps(view, frame)
    pixels = np.where(known[..., None], RAMP[steps], np.uint8(255))
    tissue = sampled(view.tissue, (view.px_l0, view.px_l0), frame, False)
    pixels[tissue & ~ndimage.binary_erosion(tissue, iterations=2)] = LINE
    kinds = hatched(result, view, frame)
    picture = Image.fromarray(pixels).convert("RGBA")
    picture.alpha_composite(hatch_layer(kinds, frame).convert("RGBA"))
    return png(with_key(picture.convert("RGB"), result, frame, kinds, on_slide=False))
