"""Nevi and melanomas in a strip: a solid body, nests and single cells, between curves over the strip.

A melanoma's deepest cell is at its Breslow thickness exactly; everything else ends CLEARANCE_UM above it. A nevus is
symmetric and matures: its cells become smaller and fewer with depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from melanoma_infer.phantom.nests import Lattice, Ovals, lower_ends
from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.options import DEPTH_MM, Options
from melanoma_infer.phantom.skin import Curve, Layers, Skin, Waves

_MELANOMA, _NEVUS, _SERIAL = 400, 450, 480
DEEPEST = 0.87
"""A melanoma's thickness is at most this part of the skin's."""
CLEARANCE_UM = 15.0
NEST_REACH_UM = 50
"""A nest's depth may be measured this far beside its centre."""
LEVEL_UM = 500
LOBE_REACH = 0.92
"""The deepest lobe of nests reaches to this part of the thickness; the deepest cells hang from it."""
WIDEST_AT_UM, NARROWEST_AT_UM = 350.0, 2200.0
"""Thicknesses between which lesions become narrower with depth."""
PAGETOID_MARGIN_UM = 6.0
"""Cells in the epidermis keep this far from the granular layer."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """Cells in the dermis (`body` is the lower border of the solid part, −∞ beside it) and in the epidermis."""

    body: Curve
    dermal: tuple[Lattice, ...]
    deepest: Ovals
    epidermal: tuple[Lattice, ...]
    from_um: float
    to_um: float


@dataclass(frozen=True, eq=False)
class Site:
    """What a lesion is put into."""

    skin: Skin
    layers: Layers
    options: Options


def melanoma(site: Site) -> Lesion:
    """An asymmetric lesion with irregular nests, whose deepest cell is as deep as the options or the seed say."""
    skin, layers = site.skin, site.layers
    s, waves = layers.s_um, Waves(skin, layers.s_um)
    wide, skew, solid, dense, deep, shoulder_left, shoulder_right, spill = draws(8, stream(skin.seed, _MELANOMA))
    depth = melanoma_depth_um(site, deep)
    # Deep lesions are narrow, thin ones wide, and solidity varies at any depth: the amount of tumour says little of it.
    half = _half_width(depth) * (0.6 + 0.9 * wide)
    half *= 1.2 if "large" in site.options.cases else 1
    half = min(half if site.options.width_mm is None else 500 * site.options.width_mm, 0.16 * skin.length_um)
    peak = (0.15 + 0.45 * abs(2 * skew - 1)) * (1 if skew > 0.5 else -1)
    x = (s - skin.site_um) / half
    x = np.where(x < peak, (x - peak) / (1 + peak), (x - peak) / (1 - peak))
    profile = np.maximum(1 - x * x, 0)
    thin = layers.junction - layers.reference + 45
    lobes = 0.35 * waves(95, _MELANOMA + 20) + 0.65 * waves(310, _MELANOMA + 21)
    shape = np.sqrt(profile) * (0.62 + 0.38 * lobes)
    shape *= LOBE_REACH / float(shape.max())
    level = _level(layers.reference)
    # The deepest cells are below the lobe that is deepest under its own surface, where the dermis begins in time.
    below = np.where((profile > 0.3) & (thin <= depth), level + depth * shape - layers.reference, -np.inf)
    if np.isfinite(below.max()):
        deepest_at = int(below.argmax())
    else:
        near = np.flatnonzero(profile > 0.3)
        deepest_at = int(near[thin[near].argmin()])
        depth = max(depth, float(thin[deepest_at]))
    limit = _lowest_near(layers.reference, NEST_REACH_UM) + depth - CLEARANCE_UM
    limit = np.minimum(limit, layers.bottom - 60)
    reach = depth * shape
    body = depth * (0.3 + 0.45 * solid) * profile * (0.45 + 0.55 * lobes)
    body = np.minimum(level + body, limit)
    nests_end = np.where(profile > 0, np.minimum(level + 0.97 * reach + 10, limit), -np.inf)
    cells_end = np.where(profile > 0, np.minimum(level + reach + 30, limit), -np.inf)
    left, right = skin.site_um - half * (1 + 0.5 * shoulder_left), skin.site_um + half * (1 + 0.5 * shoulder_right)
    in_situ = (s > left) & (s < right)
    above = np.where(in_situ, layers.granular_end + PAGETOID_MARGIN_UM, np.inf)
    junction_end = np.where(in_situ, layers.junction + 18, -np.inf)
    start = np.maximum(layers.junction - 10, np.minimum(body, nests_end) - 60)

    def key(use: int) -> np.uint32:
        return stream(skin.seed + skin.number, _MELANOMA + use)

    return Lesion(
        body=np.where((profile > 0) & (body > layers.junction), body, -np.inf),
        dermal=(
            Lattice(key(1), 112, (42, 34), (0.4 + 0.55 * dense, 0.6), start, nests_end),
            Lattice(key(2), 68, (25, 18), (0.35 + 0.45 * dense, 0.45), start, nests_end),
            Lattice(key(3), 27, (9.5, 8.5), (0.35, 0.14 + 0.2 * spill), start, cells_end, single=True),
        ),
        deepest=_deepest_cells(layers, deepest_at, depth),
        epidermal=(
            Lattice(key(4), 25, (9, 10), (0.10, 0.5), above, np.where(in_situ, layers.junction, -np.inf), single=True),
            Lattice(key(5), 70, (30, 26), (0.5, 0.5), np.where(in_situ, layers.junction - 55, np.inf), junction_end),
        ),
        from_um=float(left),
        to_um=float(right),
    )


def nevus(site: Site) -> Lesion:
    """A symmetric lesion that matures: evenly spaced nests at the junction, ever smaller cells below."""
    skin, layers = site.skin, site.layers
    s = layers.s_um
    wide, deep, aside, _ = draws(4, stream(skin.seed, _NEVUS))
    large = "large" in site.options.cases
    half = min((650 + 900 * wide) * (1.5 if large else 1), 0.17 * skin.length_um)
    depth = min((280 + 1500 * deep) * (1.35 if large else 1), 0.55 * skin.thickness_um)
    middle = skin.site_um
    if site.options.cases >= {"on-nevus"}:
        middle += (0.5 * half + 500 * aside) * (1 if aside > 0.5 else -1)
    x = (s - middle) / half
    profile = np.maximum(1 - x * x, 0)
    inside = profile > 0
    smooth = np.sqrt(np.sqrt(profile)) if large else np.sqrt(profile)
    smooth *= 0.86 + 0.14 * Waves(skin, s)(210, _NEVUS + 20)
    level = _level(layers.reference)
    body = np.minimum(level + 0.72 * depth * smooth, layers.bottom - 60)
    start = np.maximum(layers.junction, body - 40)
    fringe = np.where(inside, np.minimum(level + depth * smooth + 40, layers.bottom - 40), -np.inf)

    def key(use: int) -> np.uint32:
        return stream(skin.seed + skin.number, _NEVUS + use)

    return Lesion(
        body=np.where(inside & (body > layers.junction + 20), body, -np.inf),
        dermal=(Lattice(key(1), 21, (8.5, 6.5), (0.75, 0.2), start, fringe, single=True),),
        deepest=Ovals(*(np.empty(0) for _ in range(4))),
        epidermal=(
            Lattice(
                key(2), 74, (29, 29), (0.8, 0.8), np.where(inside, layers.junction - 60, np.inf),
                np.where(inside, layers.junction + 20, -np.inf), 0.4,
            ),
        ),
        from_um=float(middle - half),
        to_um=float(middle + half),
    )  # fmt: skip


def melanoma_depth_um(site: Site, drawn: float) -> float:
    """Breslow thickness of this serial section: one section has the whole, the others 70 to 98 % of it."""
    skin, options = site.skin, site.options
    least, most = DEPTH_MM[0] * 1000, min(DEPTH_MM[1] * 1000, DEEPEST * skin.thickness_um)
    whole = 300 + 2200 * drawn * drawn if options.depth_mm is None else options.depth_mm * 1000
    whole = min(max(whole, least), most)
    worst, *shares = draws(5, stream(skin.seed, _SERIAL))
    if skin.number == int(worst * options.sections):
        return whole
    return whole * (0.7 + 0.28 * shares[skin.number])


def _half_width(depth: float) -> float:
    """The usual half of a lesion's width in µm: area hardly depends on thickness up to NARROWEST_AT_UM."""
    root = sqrt(min(max(depth, WIDEST_AT_UM), NARROWEST_AT_UM) / 1000)
    return 780 / (root * sqrt(root)) * sqrt(max(depth / NARROWEST_AT_UM, 1.0))


def invasive_end(lesion: Lesion, layers: Layers) -> Curve:
    """The lower end of the invasive cells at each µm of s, −∞ without any."""
    length = len(layers.s_um)
    ends = np.maximum(lesion.body, lower_ends(lesion.deepest, length))
    for lattice in lesion.dermal:
        ends = np.maximum(ends, lower_ends(lattice.ovals(), length))
    return np.where(ends > layers.junction, ends, -np.inf)


def _deepest_cells(layers: Layers, at: int, depth: float) -> Ovals:
    """A cluster of seven cells whose lowest point is `depth` below the reference above it."""
    s = at + 0.5 + np.array([0.0, -17, 15, -4, 24, -27, 8])
    d = -np.array([0.0, 14, 10, 27, 30, 36, 46])
    radius = np.array([12.0, 11, 11, 13, 10, 10, 12])
    cluster = Ovals(s, layers.reference[at] + depth + d, radius, np.array([0.3, -0.4, 0.5, 0, 0.2, -0.5, 0.4]))
    below = lower_ends(cluster, len(layers.s_um)) - layers.reference
    return Ovals(s, cluster.d_um - (float(below.max()) - depth), radius, cluster.tilt)


def _level(reference: Curve) -> Curve:
    """The reference without its papillae and furrows, its mean over LEVEL_UM: lower ends of lesions follow it."""
    half = LEVEL_UM // 2
    padded = np.concatenate([np.full(half + 1, reference[0]), reference, np.full(half, reference[-1])])
    sums = np.cumsum(padded)
    level: Curve = (sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1)
    return level


def _lowest_near(curve: Curve, reach: int) -> Curve:
    """The least value of a curve within `reach` µm on either side."""
    padded = np.concatenate([np.full(reach, np.inf), curve, np.full(reach, np.inf)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    least: Curve = windows.min(axis=1)
    return least
