"""How far easy methods get on phantoms: a ruler without learning, ridge regression, mean colour and file size.

    python benchmarks/phantom_difficulty.py [--tiles 2000] [--processes 2] [--save benchmarks/results/phantom.csv]

A phantom that an easy method reads is no test of a network. Tiles are of the headline styles E and F.
"""

from __future__ import annotations

import argparse
import csv
import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.stats import rankdata

from melanoma_infer.phantom.mark import GENERATOR
from melanoma_infer.phantom.styles import HEADLINE_STYLES
from melanoma_infer.phantom.tiles import draw_tile, phantom_case, place_tile

TILE_PX, UM_PER_PX = 512, 3000 / 512
FIRST_SEED = 3_200_000_000
"""The phantom was tuned on others."""
LIMITS = {"ruler": 0.4, "ruler, calibrated": 0.4, "ridge": 0.3, "auc": 0.6}
H_AND_E = np.array([[0.65, 0.70, 0.29], [0.10, 0.78, 0.46], [0.27, 0.57, 0.78]])
"""Usual optical densities of haematoxylin and eosin, and a third direction for the rest."""
FOLDS = 5


@dataclass(frozen=True)
class Seen:
    """What easy methods see of a tile, and the truth."""

    kind: str
    breslow_mm: float
    measurable: bool
    outcome: bool
    probability: float
    ruler_mm: float
    statistics: list[float]
    simple: dict[str, float]


def look(seed: int) -> Seen:
    """Draw a tile and look at it with each easy method."""
    case = phantom_case(seed, HEADLINE_STYLES)
    tile = place_tile(case, int(seed % 4 == 0), TILE_PX, UM_PER_PX)
    pixels = draw_tile(case, tile)
    return Seen(
        kind=tile.shows,
        breslow_mm=tile.breslow_mm or np.nan,
        measurable=bool(tile.surface_in_tile),
        outcome=case.person.outcome,
        probability=case.person.probability,
        ruler_mm=ruler(pixels),
        statistics=statistics(pixels),
        simple=simple(pixels),
    )


def stains(pixels: np.ndarray) -> np.ndarray:
    """Amounts of haematoxylin, eosin and the rest, (h, w, 3): colour deconvolution."""
    white = np.percentile(pixels.reshape(-1, 3), 99, axis=0)
    density = -np.log10(np.clip(pixels / white, 0.01, 1))
    return density @ np.linalg.inv(H_AND_E / np.linalg.norm(H_AND_E, axis=1, keepdims=True))


def otsu(values: np.ndarray) -> float:
    """The threshold with the largest variance between the two sides."""
    counts, edges = np.histogram(values, bins=128)
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / total - sums) ** 2 / (below * (total - below))
    return float(middles[np.nanargmax(between[:-1])])


def ruler(pixels: np.ndarray) -> float:
    """Thickness in mm without learning: the largest dark body's deepest point, from the nearest surface.

    Haematoxylin by colour deconvolution, averaged over 50 µm; Otsu's threshold within tissue; an opening that removes
    the epidermis and adnexa; the largest distance from background within the largest body that touches the surface.
    """
    density = stains(pixels)
    tissue = ndimage.gaussian_filter(density.sum(axis=2), 3) > 0.12
    tissue = ndimage.binary_fill_holes(ndimage.binary_closing(tissue, iterations=12))
    if tissue.sum() < 500:
        return 0.0
    blue = ndimage.gaussian_filter(density[..., 0], 50 / UM_PER_PX)
    dark = (blue > otsu(blue[tissue])) & tissue
    body = ndimage.binary_opening(dark, iterations=round(70 / UM_PER_PX))
    body = ndimage.binary_dilation(body, iterations=3) & dark
    outside, count = ndimage.label(~tissue)
    if not count or not body.any():
        return 0.0
    sizes = ndimage.sum_labels(~tissue, outside, range(1, count + 1))
    # Background on one side of the skin: the larger one is above it, where nothing else is known.
    depth = ndimage.distance_transform_edt(outside != 1 + int(np.argmax(sizes)))
    parts, count = ndimage.label(body)
    sizes = ndimage.sum_labels(body, parts, range(1, count + 1))
    nearest = ndimage.minimum(depth, parts, range(1, count + 1))
    near = [i for i in range(count) if nearest[i] * UM_PER_PX < 250] or list(range(count))
    chosen = 1 + max(near, key=lambda i: sizes[i])
    return float(depth[parts == chosen].max()) * UM_PER_PX / 1000


def statistics(pixels: np.ndarray) -> list[float]:
    """64 numbers: mean, deviation, five percentiles of R, G, B and two stains; 16 + 8 bins; 5 of edges."""
    density = stains(pixels)
    planes = [*(pixels[..., channel] / 255 for channel in range(3)), density[..., 0], density[..., 1]]
    numbers = [f(plane) for plane in planes for f in (np.mean, np.std)]
    numbers += [value for plane in planes for value in np.percentile(plane, (5, 25, 50, 75, 95))]
    grey = pixels.mean(axis=2)
    numbers += list(np.histogram(grey, bins=16, range=(0, 256))[0] / grey.size)
    numbers += list(np.histogram(density[..., 0], bins=8, range=(0, 1))[0] / grey.size)
    steps = np.abs(np.diff(grey, axis=0)).ravel()
    numbers += [steps.mean(), steps.std(), *np.percentile(steps, (50, 90, 99))]
    return [float(value) for value in numbers]


def simple(pixels: np.ndarray) -> dict[str, float]:
    """Mean colour, brightness, and the bytes of a PNG and a JPEG."""
    sizes = {}
    for name, options in (("PNG", {}), ("JPEG", {"quality": 85})):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, name, **options)
        sizes[f"{name} bytes"] = float(file.tell())
    red, green, blue = (float(value) for value in pixels.reshape(-1, 3).mean(axis=0))
    return {"mean red": red, "mean green": green, "mean blue": blue, "brightness": red + green + blue, **sizes}


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve, whichever way round."""
    ranks, positive = rankdata(scores), int(truth.sum())
    area = (ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive))
    return float(max(area, 1 - area))


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Predictions of five-fold cross-validated ridge regression, with the best of several penalties."""
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    fold = np.arange(len(y)) % FOLDS
    best, least = np.zeros(len(y)), np.inf
    for penalty in (1.0, 10.0, 100.0, 1000.0):
        told = np.zeros(len(y))
        for k in range(FOLDS):
            a, b = x[fold != k], y[fold != k]
            weights = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ (b - b.mean()))
            told[fold == k] = x[fold == k] @ weights + b.mean()
        if (error := float(((told - y) ** 2).sum())) < least:
            best, least = told, error
    return best


def rows_of(seen: list[Seen]) -> list[dict[str, object]]:
    """One row a method."""
    measurable = [tile for tile in seen if tile.measurable]
    depth = np.array([tile.breslow_mm for tile in measurable])
    ruled = np.array([tile.ruler_mm for tile in measurable])
    slope, offset = np.polyfit(ruled, depth, 1)
    told = ridge(np.array([tile.statistics for tile in measurable]), depth)
    r2 = 1 - ((told - depth) ** 2).sum() / ((depth - depth.mean()) ** 2).sum()
    rows = [
        _row("ruler", "MAE mm", float(np.abs(ruled - depth).mean()), "> 0.4", len(depth)),
        _row("ruler, calibrated", "MAE mm", float(np.abs(slope * ruled + offset - depth).mean()), "> 0.4", len(depth)),
        _row("median", "MAE mm", float(np.abs(depth - np.median(depth)).mean()), "", len(depth)),
        _row("ridge on 64 statistics", "R²", float(r2), "< 0.3", len(depth)),
    ]
    malignant = [tile for tile in seen if tile.kind == "melanoma"]
    outcome = np.array([tile.outcome for tile in malignant])
    for name in malignant[0].simple:
        values = np.array([tile.simple[name] for tile in malignant])
        rows.append(_row(f"outcome by {name}", "AUC", auc(values, outcome), "< 0.6", len(outcome)))
    ceiling = np.array([tile.probability for tile in malignant])
    rows.append(_row("outcome by its probability", "AUC", auc(ceiling, outcome), "", len(outcome)))
    lesion = np.array([tile.kind != "none" for tile in seen])
    is_melanoma = np.array([tile.kind == "melanoma" for tile in seen])
    told = ridge(np.array([tile.statistics for tile in seen]), is_melanoma.astype(float))
    rows.append(_row("melanoma by ridge", "AUC", auc(told, is_melanoma), "", len(seen)))
    rows.append(
        _row("melanoma or nevus by ridge", "AUC", auc(told[lesion], is_melanoma[lesion]), "", int(lesion.sum()))
    )
    return rows


def _row(method: str, measure: str, value: float, wanted: str, tiles: int) -> dict[str, object]:
    return {
        "generator": GENERATOR, "styles": "E F", "method": method, "measure": measure, "value": round(value, 4),
        "wanted": wanted, "tiles": tiles,
    }  # fmt: skip


def main() -> None:
    """Print a row a method, and save them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args()
    with ProcessPoolExecutor(asked.processes) as pool:
        seen = list(pool.map(look, range(FIRST_SEED, FIRST_SEED + asked.tiles), chunksize=8))
    rows = rows_of(seen)
    for row in rows:
        print(f"{row['method']:32} {row['measure']:7} {row['value']:8} {row['wanted']:7} {row['tiles']}")
    if asked.save:
        with asked.save.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
