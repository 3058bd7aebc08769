"""heatmap.png: the evidence alone, on white, in cells of their true size; a thin line marks the edge of the tissue."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from melanoma_infer.reports.drawing import LINE, RAMP, WHITE, png
from melanoma_infer.reports.frame import frame_of, sampled
from melanoma_infer.reports.layers import hatch_layer, hatched, heat_steps
from melanoma_infer.reports.picture_key import with_key, without_view
from melanoma_infer.result import SlideResult

_COLOURS = np.array([(*colour, 255) for colour in (*RAMP.tolist(), WHITE, LINE)], np.uint8).view(np.uint32)[:, 0]
"""RGBA as one number: those of the ramp, then that of what is not known, and that of the edge of the tissue."""
_UNKNOWN, _EDGE = np.uint16(len(RAMP)), np.uint16(len(RAMP) + 1)


def render(result: SlideResult) -> bytes:
    """A PNG of at most about 1600 px; the same result gives the same bytes."""
    view = result.view
    if view is None:
        return without_view()
    frame = frame_of(result, view)
    steps, known = heat_steps(view, frame)
    drawn = np.where(known, steps, _UNKNOWN)
    tissue = sampled(view.tissue, (view.px_l0, view.px_l0), frame, False)
    drawn[tissue & ~ndimage.binary_erosion(tissue, iterations=2)] = _EDGE
    kinds = hatched(result, view, frame)
    picture = Image.fromarray(_COLOURS[drawn][..., None].view(np.uint8))
    picture.alpha_composite(hatch_layer(kinds, frame).convert("RGBA"))
    return png(with_key(picture.convert("RGB"), result, frame, kinds, on_slide=False))
