"""Areas of evidence clipped to the tissue: labelled cells ∩ tissue mask → connected parts, measured.

Cells and mask pixels are two grids of different spacing. Every edge of both is a line of the common grid, so a part has
the tissue's own edge, and its area is the tissue in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from melanoma_infer.geometry import SizePx
from melanoma_infer.records import Tissue
from melanoma_infer.tiles.colour import bands

CRUMB_CELLS = 0.10
"""Clipping cuts crumbs off at the ragged edge of the tissue. Parts smaller than this share of a cell are dropped, but
never the largest part of an area of evidence."""


@dataclass(frozen=True)
class Axis:
    """One side of the slide, cut at the edges of cells and of mask pixels.

    lines: float64 (n + 1,), the cuts in l0 pixels, to a hundredth · cell, px: int (n,), the cell and the mask pixel
    that a piece is in · length: float64 (n,), the length of the piece before its ends were rounded, in l0 pixels.
    """

    lines: NDArray[np.float64]
    cell: NDArray[np.int64]
    px: NDArray[np.int64]
    length: NDArray[np.float64]

    @classmethod
    def of(cls, cells: slice, cell_l0: float, pixels: int, px_l0: float, length_l0: int) -> Axis:
        """The part of an axis that these cells take, as far as slide and mask reach."""
        cell_edges = np.arange(cells.start, cells.stop + 1) * cell_l0
        begin, end = float(cell_edges[0]), min(float(cell_edges[-1]), pixels * px_l0, float(length_l0))
        first, last = (min(pixels - 1, int(edge / px_l0)) for edge in (begin, end))
        px_edges = np.arange(first, last + 2) * px_l0
        edges = np.concatenate([cell_edges, px_edges])
        lines = np.unique(np.append(edges[(edges >= begin) & (edges <= end)], max(begin, end)).round(2))
        middles = (lines[:-1] + lines[1:]) / 2
        cell, px = (np.searchsorted(edges.round(2), middles) - 1 for edges in (cell_edges, px_edges))
        upper = np.minimum(np.minimum(cell_edges[cell + 1], px_edges[px + 1]), end)
        lower = np.maximum(cell_edges[cell], px_edges[px])
        return cls(lines, cell + cells.start, px + first, np.maximum(upper - lower, 0.0))


@dataclass(frozen=True)
class Parts:
    """The connected parts of all areas of evidence on tissue; arrays (n,) hold one value a part.

    labels: int32 (h, w), the parts from 1 on, 0 outside · xs, ys: the lines of this grid in l0 pixels · area_l0: in
    square l0 pixels · lesion, malignant: evidence, summed over the area · tissue_section: the section a part is on.
    """

    labels: NDArray[np.int32]
    xs: NDArray[np.float64]
    ys: NDArray[np.float64]
    area_l0: NDArray[np.float64]
    lesion: NDArray[np.float64]
    malignant: NDArray[np.float64]
    tissue_section: NDArray[np.int32]


def clip(
    areas: NDArray[np.int32],
    evidence: tuple[NDArray[np.float64], NDArray[np.float64]],
    cell_l0: tuple[float, float],
    tissue: Tissue,
    size_l0: SizePx,
) -> Parts:
    """The parts of labelled areas of cells that are on tissue and inside the slide.

    Args:
        areas: int32 (h, w), cells by area from 1 on, 0 outside.
        evidence: of a lesion and of a malignant one, on the same cells.
        cell_l0: width and height of a cell in l0 pixels.
        tissue: the mask.
        size_l0: the slide.
    """
    rows, columns = (_extent(np.asarray(areas.any(axis=axis))) for axis in (1, 0))
    height, width = tissue.mask.shape
    down = Axis.of(rows, cell_l0[1], height, tissue.px_l0, size_l0.height)
    across = Axis.of(columns, cell_l0[0], width, tissue.px_l0, size_l0.width)
    area_of = areas.take(down.cell, axis=0).take(across.cell, axis=1)
    on_tissue = tissue.mask.take(down.px, axis=0).take(across.px, axis=1)
    labels = np.zeros(area_of.shape, np.int32)
    count = ndimage.label((area_of > 0) & on_tissue, output=labels) if labels.size else 0
    # Tissue sections are numbered from 1 in reading order of their first pixels.
    sections: NDArray[np.int32] = ndimage.label(tissue.mask, np.ones((3, 3)))[0]
    sums = np.zeros((3, count + 1))
    section, area = np.zeros((2, count + 1), np.int32)
    for band in bands(len(labels)):  # so that memory does not grow with the slide
        # Counted flat: np.nonzero of two dimensions takes five times as long.
        y, x = np.divmod(np.flatnonzero(labels[band]) + band.start * len(across.cell), len(across.cell))
        part, cell = labels[y, x], (down.cell[y], across.cell[x])
        weight = down.length[y] * across.length[x]
        for total, values in zip(sums, (weight, *(weight * each[cell] for each in evidence)), strict=True):
            total += np.bincount(part, values, count + 1)
        section[part], area[part] = sections[down.px[y], across.px[x]], areas[cell]
    kept = _without_crumbs(sums[0], area, CRUMB_CELLS * cell_l0[0] * cell_l0[1])
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    size, lesion, malignant = sums[:, kept]
    return Parts(numbers[labels], across.lines, down.lines, size, lesion, malignant, section[kept])


def _extent(taken: NDArray[np.bool_]) -> slice:
    """From the first true value to the last."""
    places = np.flatnonzero(taken)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _without_crumbs(sizes: NDArray[np.float64], areas: NDArray[np.int32], smallest: float) -> NDArray[np.bool_]:
    """Which parts to keep: those of some size, and the largest of each area; the first value is the background's."""
    kept = sizes >= smallest
    order = np.lexsort((-sizes, areas))
    kept[order[np.diff(areas[order], prepend=-1) > 0]] = True
    kept &= sizes > 0
    kept[0] = False
    return kept
