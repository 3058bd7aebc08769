"""Regions: the model's maps, stitched over the slide → connected areas of evidence, measured and outlined.

Cell evidence = p(lesion) · min(1, cam_lesion / cam_scale), both of an unknown patient, overlapping tiles averaged. A
region is a connected part of the tissue inside cells with evidence ≥ the card's region_threshold: cells are clipped to
the tissue, so that no region is larger than its tissue. It is malignant when the evidence-weighted
p(malignant) / p(lesion) is at least one half. Where a lesion is, and what it is, does not depend on the patient's age:
patient values change scores and verdict, never a region.

Heat shows regions, not lesions: a slide often carries several serial sections of one lesion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from melanoma_infer.card import ModelCard
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import EvidenceMap, TileTable, Tissue
from melanoma_infer.result import Region
from melanoma_infer.scoring.clipping import clip
from melanoma_infer.scoring.outlines import outlines
from melanoma_infer.tiles.grid import Geometry, TissueArea

CELL_TISSUE_MIN = 0.10
"""Cells with less tissue show no evidence, so that there is no heat over background; as for tiles, 10 %."""
MALIGNANT_RATIO = 0.5
FEW_POINTS, MANY_POINTS = 100, 1000
"""Corners of an outline. All distances between a few are computed at once, and between up to many once those that no
corner of the convex hull can be are left out: 10 ms, where SciPy's hull takes 150 ms to import."""

Ring = list[list[float]]


@dataclass(frozen=True)
class StitchedMaps:
    """Evidence of a lesion, and of a malignant one, on the same cells: float64 (h, w), NaN where nothing is known."""

    lesion: NDArray[np.float64]
    malignant: NDArray[np.float64]
    cell_l0: tuple[float, float]
    source: str

    @property
    def evidence(self) -> EvidenceMap:
        """The map that pictures show."""
        return EvidenceMap(self.lesion.astype(np.float32), self.cell_l0, "cam" if self.source == "cam" else "tile")


def has_maps(card: ModelCard) -> bool:
    """Whether the model says where in a tile the evidence is."""
    return "cam" in card.outputs and card.cam_scale is not None


def stitch(
    tiles: TileTable,
    card: ModelCard,
    *,
    size_l0: SizePx,
    scale: Scale,
    geometry: Geometry,
    tissue: Tissue,
) -> StitchedMaps:
    """The tiles' evidence on one grid of cells.

    A cell is one of the model's maps; without maps it is one stride wide. Tiles are placed on the nearest cell.

    Args:
        tiles: the results, with the probabilities of an unknown patient.
        card: roles of the classes, cam_scale.
        size_l0: the slide.
        scale: µm per l0 pixel.
        geometry: the tiles.
        tissue: where evidence may be shown.
    """
    cells_a_tile = tiles.cam.shape[2:] if has_maps(card) and tiles.cam is not None else None
    if cells_a_tile is None:
        cell_um = (geometry.stride_um, geometry.stride_um)
        cells = (max(1, round(geometry.tile_um / geometry.stride_um)),) * 2
    else:
        cell_um = (geometry.tile_um / cells_a_tile[1], geometry.tile_um / cells_a_tile[0])
        cells = cells_a_tile
    cell_l0 = (cell_um[0] / scale.x_um, cell_um[1] / scale.y_um)
    shape = (_cells(size_l0.height, cell_l0[1]), _cells(size_l0.width, cell_l0[0]))
    sums, counts = np.zeros((2, *shape)), np.zeros(shape)
    for row in np.flatnonzero(tiles.status == "ok"):
        p_lesion, p_malignant = (
            float(tiles.probabilities[row][list(columns)].sum())
            for columns in (card.lesion_columns, card.malignant_columns)
        )
        patch = np.full(cells, p_lesion)
        if tiles.cam is not None and card.cam_scale is not None:
            patch = p_lesion * np.clip(tiles.cam[row, 0].astype(np.float64) / card.cam_scale, 0.0, 1.0)
        place = _Place.of(tiles, int(row), cell_l0, patch.shape, shape)
        sums[0][place.on_grid] += patch[place.on_tile]
        sums[1][place.on_grid] += patch[place.on_tile] * (p_malignant / p_lesion if p_lesion > 0 else 0.0)
        counts[place.on_grid] += 1
    xs = np.minimum(np.arange(shape[1] + 1) * cell_l0[0], size_l0.width)
    ys = np.minimum(np.arange(shape[0] + 1) * cell_l0[1], size_l0.height)
    areas = np.diff(ys)[:, None] * np.diff(xs)[None, :]  # of the cells' parts inside the slide
    on_tissue = TissueArea(tissue.mask, tissue.px_l0).on_grid(xs, ys) / np.maximum(areas, 1e-9) >= CELL_TISSUE_MIN
    with np.errstate(invalid="ignore"):
        lesion, malignant = np.where((counts > 0) & on_tissue, sums / counts, np.nan)
    return StitchedMaps(lesion, malignant, cell_l0, "cam" if cells_a_tile else "tile")


def find_regions(maps: StitchedMaps, card: ModelCard, *, size_l0: SizePx, scale: Scale, tissue: Tissue) -> list[Region]:
    """The regions of a slide, largest first."""
    areas, _ = ndimage.label(np.nan_to_num(maps.lesion, nan=-1.0) >= max(card.region_threshold, 1e-9))
    parts = clip(areas, (maps.lesion, maps.malignant), maps.cell_l0, tissue, size_l0)
    scores = np.clip(parts.lesion / parts.area_l0, 0, 1).tolist()
    shares = np.clip(parts.malignant / parts.lesion, 0, 1).tolist()
    rings: list[list[Ring]] = []
    for corners in outlines(parts.labels):
        points = [np.column_stack([parts.xs[ring[:, 0]], parts.ys[ring[:, 1]]]).tolist() for ring in corners]
        rings.append([[*ring, ring[0]] for ring in points])
    largest_first = sorted(range(len(rings)), key=lambda part: (-parts.area_l0[part], rings[part][0]))
    return [
        Region.model_validate(
            {
                "id": f"R{number}",
                "class": "malignant" if shares[part] >= MALIGNANT_RATIO else "benign",
                "area_mm2": float(parts.area_l0[part]) * scale.pixel_mm2,
                "diameter_mm": _diameter_mm(rings[part][0], scale),
                "score": scores[part],
                "malignant_share": shares[part],
                "outline": rings[part][0],
                "holes": rings[part][1:],
                "tissue_section": int(parts.tissue_section[part]),
            }
        )
        for number, part in enumerate(largest_first, start=1)
    ]


def regions_note(maps: StitchedMaps, scale: Scale) -> str:
    """What the regions were drawn from, and at which resolution."""
    side_um = maps.cell_l0[0] * scale.x_um
    if maps.source == "cam":
        return f"Drawn from the model's maps, {side_um:.0f} µm a cell."
    return f"The model gives no maps: drawn at the resolution of the tiles, {side_um:.0f} µm."


def _cells(length_l0: int, cell_l0: float) -> int:
    return max(1, int(np.ceil(length_l0 / cell_l0 - 1e-6)))


@dataclass(frozen=True)
class _Place:
    """Where a tile's cells are on the grid, cropped at its edges."""

    on_grid: tuple[slice, slice]
    on_tile: tuple[slice, slice]

    @classmethod
    def of(
        cls, tiles: TileTable, row: int, cell_l0: tuple[float, float], cells: tuple[int, ...], grid: tuple[int, int]
    ) -> _Place:
        top, left = round(int(tiles.miny[row]) / cell_l0[1]), round(int(tiles.minx[row]) / cell_l0[0])
        height, width = min(cells[0], grid[0] - top), min(cells[1], grid[1] - left)
        return cls(
            (slice(top, top + max(0, height)), slice(left, left + max(0, width))),
            (slice(0, max(0, height)), slice(0, max(0, width))),
        )


def _diameter_mm(ring: Ring, scale: Scale) -> float:
    """The largest distance between two points of the outline."""
    points = np.array(ring[:-1]) * (scale.x_um, scale.y_um) / 1000
    if len(points) > FEW_POINTS:
        points = _ends_of_columns(points)
    if len(points) > MANY_POINTS:
        from scipy.spatial import ConvexHull

        points = points[ConvexHull(points).vertices]
    across, down = (points[:, None, axis] - points[:, axis] for axis in (0, 1))
    return float(np.sqrt((across**2 + down**2).max()))


def _ends_of_columns(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest and the lowest of the points in each column: the corners of the convex hull are among them."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    new = np.diff(ordered[:, 0]) > 0
    ends: NDArray[np.float64] = ordered[np.append(True, new) | np.append(new, True)]
    return ends
