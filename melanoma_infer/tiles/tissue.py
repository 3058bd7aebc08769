"""Where the tissue is: slide → mask on a plane of at most 8 µm/px, or of at most PLANE_PX_MAX pixels.

Brightfield only: stained tissue is saturated, the background is not. Pen ink in colours that no stain has is excluded,
and so is dark fill.
Blocks that cannot be read count as tissue, so that they are reported as unreadable instead of taken for background.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from melanoma_infer.errors import SlideFormatError
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import Tissue
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.colour import (
    LUMINANCE_PER_MILLE,
    bands,
    by_bands,
    histogram,
    ink_coloured,
    is_ycbcr,
    otsu,
    saturation_of,
)
from melanoma_infer.tiles.dark_fill import dark_fill
from melanoma_infer.tiles.mask_image import read_mask, require_not_inverted
from melanoma_infer.tiles.plane import Plane, read_plane

SATURATION_THRESHOLD = (18, 60)
"""Otsu's threshold on 8-bit saturation is clipped to this: below is dust, above pale eosin is lost."""
LUMINANCE_P95_MIN = 150
"""The background of a brightfield slide is bright; that of fluorescence is not."""
CLOSING_UM = 24.0
SPECK_MM2 = 0.02
HOLE_MM2 = 0.05
INK_MM2 = 0.05
"""Ink covers areas; single greenish or bluish pixels are noise."""


def find_tissue(slide: Slide, scale: Scale, source: str = "auto") -> Tissue:
    """The tissue of a slide.

    Args:
        slide: the open slide.
        scale: µm per level-0 pixel.
        source: "auto", "all" (everything that the slide covers), or the path of a mask image: any size, the slide's
            aspect ratio, tissue where it is neither black nor transparent.

    Raises:
        UsageError: the mask cannot be read, its aspect ratio is not the slide's, it does not say what is tissue, or it
            is inverted.
        SlideFormatError: the slide's colours are wrong.
    """
    return tissue_of_plane(read_plane(slide, scale), scale, slide.facts.size_l0, source)


def tissue_of_plane(plane: Plane, scale: Scale, size_l0: SizePx, source: str = "auto") -> Tissue:
    """The tissue on a plane of a slide of this size. See find_tissue for the rest."""
    if is_ycbcr(plane.rgb, ~plane.unread):
        raise SlideFormatError(
            "The slide's background is red: its file says RGB, but its pixels are YCbCr. Some converters write such "
            "files. Export the slide again with another program or in another compression."
        )
    found = _Found(plane, scale)
    if source == "auto":
        return found.tissue()
    if source == "all":
        return found.with_mask(np.ones_like(plane.unread), "all")
    mask = read_mask(Path(source), plane.unread.shape, size_l0)
    require_not_inverted(mask, found.tissue().mask)
    return found.with_mask(mask, "mask")


class _Found:
    """The plane, and the tissue found on it."""

    def __init__(self, plane: Plane, scale: Scale) -> None:
        self._plane = plane
        self._um = (plane.px_l0 * scale.x_um, plane.px_l0 * scale.y_um)
        self._fill = dark_fill(plane.rgb, plane.unread, max(self._um))
        self._luminance_p95 = _luminance_p95(plane, ~self._fill & ~plane.unread)
        self._is_brightfield = self._luminance_p95 >= LUMINANCE_P95_MIN

    def tissue(self) -> Tissue:
        """The tissue found by colour; none if the slide is not brightfield."""
        nothing = np.zeros_like(self._plane.unread)
        if not self._is_brightfield:
            return self._record(nothing, nothing, None, "found")
        saturation = by_bands(saturation_of, self._plane.rgb)
        saturation[self._fill] = 0  # like a white background
        threshold = int(np.clip(otsu(histogram(saturation, ~self._plane.unread, 256)), *SATURATION_THRESHOLD))
        ink = _without_small(by_bands(ink_coloured, self._plane.rgb) & ~self._fill, INK_MM2 / self._px_mm2)
        mask = (saturation >= threshold) & ~ink
        # Close gaps, fill small holes, remove specks.
        closed = without_gaps(mask, closing_steps(max(self._um)))
        filled = closed | _small_holes(closed, HOLE_MM2 / self._px_mm2)
        cleaned = _without_small(filled, SPECK_MM2 / self._px_mm2)
        return self._record(cleaned & ~ink, ink, threshold, "found")

    def with_mask(self, mask: NDArray[np.bool_], source: str) -> Tissue:
        """The tissue of a mask that was given."""
        return self._record(mask, np.zeros_like(mask), None, "all" if source == "all" else "mask")

    def _record(self, mask: NDArray[np.bool_], ink: NDArray[np.bool_], threshold: int | None, source: str) -> Tissue:
        unread = self._plane.unread if self._is_brightfield or source != "found" else np.zeros_like(mask)
        return Tissue(
            mask=mask | (unread if source == "found" else False),
            ink=ink,
            unread=unread,
            px_l0=self._plane.px_l0,
            saturation_threshold=threshold,
            luminance_p95=self._luminance_p95,
            is_brightfield=self._is_brightfield,
            source="all" if source == "all" else "mask" if source == "mask" else "found",
            thumbnail=self._plane.rgb,
        )

    @property
    def _px_mm2(self) -> float:
        return self._um[0] * self._um[1] / 1e6


def closing_steps(um_per_px: float) -> int:
    """By how many pixels of the plane tissue is grown, then shrunk, so that gaps close."""
    return max(1, round(CLOSING_UM / 2 / um_per_px))


def without_gaps(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """The mask with its gaps closed."""
    closed = ndimage.binary_closing(np.pad(mask, steps), ndimage.generate_binary_structure(2, 1), steps)
    inside: NDArray[np.bool_] = closed[steps : steps + mask.shape[0], steps : steps + mask.shape[1]]
    return inside


def _luminance_p95(plane: Plane, counted_px: NDArray[np.bool_]) -> float:
    """The 95th percentile of the counted pixels, rounded down to a thousandth; 255 if there are none."""
    counts = sum(
        histogram(plane.rgb[rows] @ np.array(LUMINANCE_PER_MILLE), counted_px[rows], 255_001)
        for rows in bands(len(plane.rgb))
    )
    counted = np.cumsum(counts)
    return float(np.searchsorted(counted, 0.95 * counted[-1])) / 1000 if counted[-1] else 255.0


def _without_small(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """The mask without its connected parts of fewer pixels."""
    labels, sizes = _parts(mask)
    keep = sizes >= pixels
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def _small_holes(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """Parts of fewer pixels that the mask encloses.

    A part at the slide's edge is no hole; otherwise the background of an image smaller than HOLE_MM2 became tissue.
    """
    labels, sizes = _parts(~mask)
    fill = sizes < pixels
    fill[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        fill[edge] = False
    filled: NDArray[np.bool_] = fill[labels]
    return filled


def _parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Each pixel's connected part, 0 outside, and the parts' sizes."""
    labels, count = ndimage.label(mask)
    return labels, histogram(labels, np.ones_like(mask), count + 1)
