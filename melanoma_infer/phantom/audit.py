"""Measures the truth again, from a label map: an independent check that shares no code with `truth`.

It looks along rays through the centre of each section's arc, which the truth states (`normal_from_um`), as a
pathologist looks down a ruler held perpendicular to the skin. Layers that a lesion hides are read from the label map of
the bare skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LabelMap = NDArray[np.uint8]
Rows = NDArray[np.int64]

BACKGROUND, HORN, EPIDERMIS, RETICULAR, FAT, CRUST = 0, 1, 3, 5, 6, 8
NEVUS, IN_SITU, MELANOMA, INK = 17, 18, 19, 20
GAP_UM, GAP_LEEWAY_UM, FILLED_UM = 200.0, 15.0, 30.0
ROWS_A_PIXEL = 2
TOUCHING_UM = 30.0
"""Parts of a section may be this far apart."""


@dataclass(frozen=True)
class Ruler:
    """How to hold the ruler for one section: at this point of the skin, in line with that one, on this side of it."""

    centre_um: tuple[float, float]
    normal_from_um: tuple[float, float]
    bulge: int


@dataclass(frozen=True)
class Measured:
    """What was measured of one section; None where there is no invasive cell.

    The Clark level is a range: what it would be if every cell ended a pixel higher, or a pixel lower. So is the
    lesion's area: with gaps between cells passed over that are GAP_LEEWAY_UM narrower, or wider, than the truth says.
    """

    tissue_mm2: float
    lesion_mm2: tuple[float, float]
    ulcer_mm: float
    breslow_mm: float | None
    clark: tuple[int, int] | None
    surface_um: tuple[float, float] | None
    deepest_um: tuple[float, float] | None


@dataclass(frozen=True)
class _Rays:
    """Labels along rays (rows, rays), from above the skin down, and the geometry of the rows and rays."""

    labels: LabelMap
    bare: LabelMap
    x_um: NDArray[np.float64]
    y_um: NDArray[np.float64]
    cell_um2: NDArray[np.float64]
    step_um: float
    width_um: float
    """Distance between rays at the general surface."""


def measure(labels: LabelMap, bare: LabelMap, um_per_px: float, rulers: list[Ruler]) -> list[Measured]:
    """Each section's measures, in the order of `rulers`.

    Args:
        labels: the label of each pixel of the whole slide, (h, w).
        bare: the same skin with nothing in it but its layers, (h, w).
        um_per_px: µm per pixel of both.
        rulers: one for each section.
    """
    near = ndimage.binary_dilation(labels != BACKGROUND, iterations=max(round(TOUCHING_UM / 2 / um_per_px), 1))
    pieces, count = ndimage.label(near, structure=np.ones((3, 3)))
    distances = [ndimage.distance_transform_edt(pieces != piece) for piece in range(1, count + 1)]
    found = []
    for ruler in rulers:
        column, row = (
            min(max(int(at / um_per_px), 0), side - 1)
            for at, side in zip(ruler.centre_um, labels.shape[::-1], strict=True)
        )
        own = pieces == 1 + int(np.argmin([distance[row, column] for distance in distances]))
        found.append(
            _measured(_rays(np.where(own, labels, 0), np.where(own, bare, 0), um_per_px, ruler), labels[own], um_per_px)
        )
    return found


def _rays(labels: LabelMap, bare: LabelMap, um: float, ruler: Ruler) -> _Rays:
    centre = np.array(ruler.normal_from_um)
    towards = np.array(ruler.centre_um) - centre
    radius = float(np.hypot(*towards))
    rows, columns = np.nonzero(labels)
    x, y = (columns + 0.5) * um - centre[0], (rows + 0.5) * um - centre[1]
    away = np.hypot(x, y)
    angle = np.arctan2(towards[0] * y - towards[1] * x, towards[0] * x + towards[1] * y)
    angles = np.arange(angle.min() - 2 * um / radius, angle.max() + 2 * um / radius, um / radius)
    step = um / ROWS_A_PIXEL
    depths = np.arange(
        ((radius - away) * ruler.bulge).min() - 3 * um, ((radius - away) * ruler.bulge).max() + 3 * um, step
    )
    distance = (radius - ruler.bulge * depths)[:, None]
    first = np.arctan2(towards[1], towards[0])
    x, y = centre[0] + distance * np.cos(first + angles), centre[1] + distance * np.sin(first + angles)
    at = tuple(
        np.clip(np.floor(place / um), 0, side - 1).astype(int)
        for place, side in ((y, labels.shape[0]), (x, labels.shape[1]))
    )
    cell = np.broadcast_to(distance * (um / radius) * step, x.shape)
    return _Rays(labels[at], bare[at], x, y, cell, step, um)


def _measured(rays: _Rays, own: LabelMap, um: float) -> Measured:
    seen = rays.labels
    alive = ~np.isin(seen, (BACKGROUND, HORN, CRUST))
    start = np.where(alive.any(axis=0), alive.argmax(axis=0), len(seen))
    cells = np.isin(seen, (IN_SITU, MELANOMA)) if (seen == MELANOMA).any() else seen == NEVUS
    areas = tuple(_outlined_mm2(rays, cells, start, gap) for gap in (GAP_UM - GAP_LEEWAY_UM, GAP_UM + GAP_LEEWAY_UM))
    covered = np.isin(rays.bare, (2, EPIDERMIS)).any(axis=0)
    bare_skin = (rays.bare == CRUST).any(axis=0) & ~covered
    ends = _ends(seen == MELANOMA)
    depth = np.where(ends > 0, ends - start, -1)
    column = int(depth.argmax())
    invasive = depth[column] > 0
    surface, deepest = (
        (float(rays.x_um[row, column]), float(rays.y_um[row, column]))
        for row in (start[column] if invasive else 0, ends[column] - 1)
    )
    return Measured(
        tissue_mm2=float((own != BACKGROUND).sum()) * um * um / 1e6,
        lesion_mm2=(areas[0], areas[1]),
        ulcer_mm=float(bare_skin.sum()) * rays.width_um / 1000,
        breslow_mm=float(depth[column]) * rays.step_um / 1000 if invasive else None,
        clark=(_clark(rays, ends, -ROWS_A_PIXEL), _clark(rays, ends, ROWS_A_PIXEL)) if invasive else None,
        surface_um=surface if invasive else None,
        deepest_um=deepest if invasive else None,
    )


def _outlined_mm2(rays: _Rays, cells: NDArray[np.bool_], start: Rows, gap_um: float) -> float:
    """Area from the surface to the lowest cells, over gaps up to this wide."""
    reach = round(gap_um / 2 / rays.width_um)
    ends = ndimage.grey_closing(_ends(cells), footprint=np.ones(2 * reach + 1), mode="constant", cval=-1)
    rows = np.arange(len(cells))[:, None]
    return float(rays.cell_um2[(rows >= start) & (rows < ends)].sum()) / 1e6


def _ends(cells: NDArray[np.bool_]) -> Rows:
    """One past the last row with a cell on each ray; −1 without one."""
    return np.where(cells.any(axis=0), len(cells) - cells[::-1].argmax(axis=0), -1)


def _clark(rays: _Rays, ends: Rows, shift: int) -> int:
    """The level if every cell ended `shift` rows lower: II papillary, III fills it, IV reticular dermis, V fat."""
    reticular, fat = (_first(rays.bare, label) for label in (RETICULAR, FAT))
    ends = np.where(ends > 0, ends + shift, -10_000)
    margin = FILLED_UM / rays.step_um
    if (ends > fat).any():
        return 5
    if (ends > reticular + margin).any():
        return 4
    return 3 if (ends > reticular - margin).any() else 2


def _first(bare: LabelMap, label: int) -> Rows:
    """The first row at or below this layer on each ray; beyond the last without it."""
    there = (bare >= label) & (bare <= FAT)
    return np.where(there.any(axis=0), there.argmax(axis=0), len(bare) + 10_000)
