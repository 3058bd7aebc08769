"""Textures: how dark skin is at each point, as tones (h, w) in 0–1 for x (1, w) and y (h, 1) in µm.

Each is smooth noise, stretched and warped, with discs for nuclei. Details smaller than a pixel are drawn as their mean,
so a level of the pyramid looks like the finer level seen from further away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melanoma_infer.phantom.noise import Field, as_cells, lattice, stream, uniform, value_noise


def collagen(seed: int, x_um: Field, y_um: Field, um_per_px: float) -> Field:
    """Wavy bundles with pale clefts, and a few nuclei along them."""
    along = y_um + _warp(x_um, y_um, 210, 130, stream(seed, 1)) + _warp(x_um, y_um, 34, 14, stream(seed, 2))
    bundles = _noise(x_um, along, (95, 15), um_per_px, stream(seed, 3))
    fibres = _noise(x_um, along, (30, 3.5), um_per_px, stream(seed, 4))
    nuclei = _discs(x_um / 2.2, along, um_per_px, stream(seed, 5), Discs(pitch_um=15, radius_um=2.4, share=0.22))
    return _over(0.12 + 0.62 * bundles + 0.16 * (fibres - 0.5), nuclei)


def papillae(seed: int, x_um: Field, y_um: Field, um_per_px: float) -> Field:
    """Fine fibres."""
    along = y_um + _warp(x_um, y_um, 40, 30, stream(seed, 11))
    fibres = _noise(x_um, along, (22, 5), um_per_px, stream(seed, 12))
    nuclei = _discs(x_um / 1.5, along, um_per_px, stream(seed, 13), Discs(pitch_um=13, radius_um=2.6, share=0.3))
    return _over(0.15 + 0.55 * fibres, nuclei)


def cells(seed: int, x_um: Field, y_um: Field, um_per_px: float) -> Field:
    """Cells side by side, each with a nucleus."""
    grain = _noise(x_um, y_um, (7, 7), um_per_px, stream(seed, 21))
    patches = _noise(x_um, y_um, (60, 45), um_per_px, stream(seed, 22))
    along = y_um + _warp(x_um, y_um, 9, 5, stream(seed, 23))
    nuclei = _discs(x_um, along, um_per_px, stream(seed, 24), Discs(pitch_um=10.5, radius_um=3.2, share=0.92))
    return _over(0.2 + 0.3 * grain + 0.3 * patches, nuclei)


def nests(seed: int, x_um: Field, y_um: Field, um_per_px: float) -> Field:
    """Round nests of large uneven cells."""
    x = x_um + _warp(x_um, y_um, 60, 50, stream(seed, 31))
    y = y_um + _warp(x_um, y_um, 60, 50, stream(seed, 32))
    nests = _discs(x, y, um_per_px, stream(seed, 33), Discs(pitch_um=105, radius_um=50, share=0.9, jitter=0.6))
    wavy = y_um + _warp(x_um, y_um, 9, 8, stream(seed, 34))
    grain = _noise(x_um, wavy, (11, 11), um_per_px, stream(seed, 35))
    nuclei = _discs(x_um, wavy, um_per_px, stream(seed, 36), Discs(pitch_um=14, radius_um=4.6, share=0.85))
    return _over(0.1 + 0.35 * nests + 0.35 * grain, nuclei)


def fat(seed: int, x_um: Field, y_um: Field, um_per_px: float) -> Field:
    """Round pale cells with thin walls."""
    x = x_um + _warp(x_um, y_um, 110, 60, stream(seed, 41))
    y = y_um + _warp(x_um, y_um, 110, 60, stream(seed, 42))
    inside = _discs(x, y, um_per_px, stream(seed, 43), Discs(pitch_um=76, radius_um=38, share=1, jitter=0, vary=0.05))
    return 0.6 - 0.45 * inside


def grains(seed: int, x_um: Field, y_um: Field, um_per_px: float) -> Field:
    """Red cells, keratin and horn: grains elongated along the surface."""
    along = y_um + _warp(x_um, y_um, 12, 14, stream(seed, 51))
    return 0.05 + 0.85 * _noise(x_um, along, (11, 5), um_per_px, stream(seed, 52))


def _over(tones: Field, nuclei: Field) -> Field:
    """Tones with nuclei on top. Unlike that of a maximum, the mean follows from the means of both."""
    return tones + (1 - tones) * nuclei


def _noise(x_um: Field, y_um: Field, cell_um: tuple[float, float], um_per_px: float, key: np.uint32) -> Field:
    """Smooth noise, flattened to its mean if its cells are smaller than pixels."""
    seen = _seen(min(cell_um), um_per_px)
    if seen == 0:
        return np.full(np.broadcast_shapes(x_um.shape, y_um.shape), 0.5, np.float32)
    noise = value_noise(x_um / cell_um[0], y_um / cell_um[1], key)
    noise -= 0.5
    noise *= seen
    noise += 0.5
    return noise


def _seen(feature_um: float, um_per_px: float) -> np.float32:
    """How much of a feature is visible: 1 from two pixels on, 0 (only its mean) below one."""
    return np.float32(np.clip(feature_um / um_per_px - 1, 0, 1))


def _warp(x_um: Field, y_um: Field, cell_um: float, width_um: float, key: np.uint32) -> Field:
    """A smooth shift in µm, ±width_um / 2, so that nothing is in straight rows."""
    return width_um * (value_noise(x_um / cell_um, y_um / cell_um, key) - 0.5)


@dataclass(frozen=True)
class Discs:
    """Discs in a brick pattern, at most one per brick.

    A fraction `share` of the bricks has one, placed randomly within a fraction `jitter` of the free room; radii are up
    to a fraction `vary` smaller than `radius_um`.
    """

    pitch_um: float
    radius_um: float
    share: float
    jitter: float = 1.0
    vary: float = 0.3


def _discs(x_um: Field, y_um: Field, um_per_px: float, key: np.uint32, discs: Discs) -> Field:
    """1 inside discs, 0 between them, soft at the rim; their mean if they are smaller than pixels."""
    # A disc of s times the radius covers π(s² − 1/6) of its square (the soft rim loses the 1/6), with s = 1 − vary · t.
    covered = np.pi * (1 - discs.vary + discs.vary**2 / 3 - 1 / 6)
    mean = np.float32(discs.share * covered * (discs.radius_um / discs.pitch_um) ** 2)
    seen = _seen(2 * discs.radius_um, um_per_px)
    if seen == 0:
        return np.full(np.broadcast_shapes(x_um.shape, y_um.shape), mean, np.float32)
    v = y_um / discs.pitch_um
    top = np.floor(v)
    u = x_um / discs.pitch_um + 0.5 * (top % 2)
    left = np.floor(u)
    column, row = as_cells(left), as_cells(top)
    bricks = lattice(column, row)
    at = (row - row.min()) * bricks[0].size + (column - column.min())
    radius = np.float32(discs.radius_um / discs.pitch_um)
    room = np.float32(discs.jitter) * (np.float32(0.5) - radius)
    size = radius * (1 - np.float32(discs.vary) * uniform(*bricks, key))
    present = uniform(*bricks, key ^ np.uint32(1)) < discs.share
    inside: Field = np.where(present, size * size, np.float32(-1)).take(at)
    for i, place in enumerate((u - left, v - top), start=2):
        centre = np.float32(0.5) + room * (2 * uniform(*bricks, key ^ np.uint32(i)) - 1)
        apart = place - centre.take(at)
        apart *= apart
        inside -= apart
    inside *= 3 / (radius * radius)
    np.clip(inside, 0, 1, out=inside)
    inside *= seen
    inside += (1 - seen) * mean
    return inside
