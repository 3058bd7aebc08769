"""Vessels, adnexa, lymphocytes and melanophages of a strip: placed by the seed alone, whatever the lesion is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from melanoma_infer.phantom.nests import Lattice
from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.options import Options
from melanoma_infer.phantom.skin import Layers, Skin

StructureKind = Literal["vessel", "follicle", "sebaceous", "gland", "lymphocytes"]

_STRUCTURES, _INFILTRATE, _MELANOPHAGES = 500, 600, 650
INFILTRATES = 18
"""Clusters in an infiltrate."""


@dataclass(frozen=True)
class Form:
    """The properties that all structures of a kind share."""

    kind: StructureKind
    every_um: float
    """Length of skin per group."""
    together: int
    """Number of structures in a group."""
    spread_um: float
    """Range of their random positions within a group."""
    depth_um: tuple[float, float]
    """Smallest and largest depth below the surface."""
    half_width_um: tuple[float, float]
    aspect: tuple[float, float]
    """Height over width."""
    inside: float
    """Size of the inside as a fraction of the whole."""


FORMS = (
    Form("vessel", 230, 1, 0, (110, 300), (7, 16), (0.7, 2.2), 0.62),
    Form("vessel", 420, 1, 0, (250, 2400), (14, 48), (0.6, 1.3), 0.7),
    Form("follicle", 1700, 1, 0, (250, 520), (48, 80), (4.5, 8), 0.42),
    Form("sebaceous", 2400, 5, 260, (480, 800), (50, 95), (0.8, 1.3), 0),
    Form("gland", 1900, 11, 230, (1100, 1700), (19, 31), (0.8, 1.2), 0.4),
    Form("lymphocytes", 900, 1, 0, (160, 900), (35, 90), (0.5, 1.4), 0),
)


@dataclass(frozen=True)
class Structure:
    """An ellipse with a wall around its inside, slanted by `slant` µm of s per µm of d."""

    kind: StructureKind
    s_um: float
    d_um: float
    half_width_um: float
    half_height_um: float
    slant: float
    inside: float


def structures_of(skin: Skin, layers: Layers, options: Options) -> tuple[Structure, ...]:
    """The structures of each form, in groups spread along the strip, and an infiltrate at the site if asked for."""
    placed = []
    for use, form in enumerate(FORMS, start=_STRUCTURES):
        groups = max(round(skin.length_um / form.every_um), 1)
        values = draws(groups * (2 + 5 * form.together), stream(skin.seed, use))
        for group in range(groups):
            along, down, *own = values[group * (2 + 5 * form.together) :]
            for i in range(form.together):
                aside, below, wide, tall, slant = own[5 * i : 5 * i + 5]
                s = along * skin.length_um + form.spread_um * (aside - 0.5) + 6 * skin.number
                depth = _within(form.depth_um, down) + form.spread_um * (below - 0.5)
                width = _within(form.half_width_um, wide)
                placed.append(_structure(layers, (s, depth), width, (form, tall, slant)))
    if "infiltrate" in options.cases:
        placed += _infiltrate(skin, layers)
    return tuple(placed)


def melanophages(skin: Skin, layers: Layers) -> Lattice:
    """Pigmented macrophages in the upper dermis around the site."""
    wide, deep, many = draws(3, stream(skin.seed, _MELANOPHAGES))
    around = np.abs(layers.s_um - skin.site_um) < 500 + 1200 * wide
    lower = np.where(around, layers.reference + 250 + 500 * deep, -np.inf)
    key = stream(skin.seed + skin.number, _MELANOPHAGES + 1)
    return Lattice(key, 33, (11, 10), (0.3 + 0.4 * many, 0.05), layers.junction, lower)


def _infiltrate(skin: Skin, layers: Layers) -> list[Structure]:
    """A band of lymphocytes at a random depth under the site, thin or thick, and clusters about it."""
    deep, wide, thick, *own = draws(3 + 4 * INFILTRATES, stream(skin.seed, _INFILTRATE))
    middle, half = 250 + 1500 * deep * deep, min(400 + 1100 * wide, skin.length_um / 6)
    placed = []
    for i in range(INFILTRATES):
        aside, below, size, tall = own[4 * i : 4 * i + 4]
        s = skin.site_um + half * (2 * (i + aside) / INFILTRATES - 1)
        depth = max(middle + (200 + 700 * thick) * (below - 0.5), 130)
        placed.append(_structure(layers, (s, depth), 70 + 180 * size, (FORMS[-1], 0.2 + 0.8 * tall, 0.5)))
    return placed


def _structure(
    layers: Layers, place: tuple[float, float], half_width: float, shape: tuple[Form, float, float]
) -> Structure:
    """A structure at s and a depth below the surface; `shape` is its form, and where in the form's limits it is."""
    (s, depth), (form, tall, slant) = place, shape
    column = min(max(int(s), 0), len(layers.s_um) - 1)
    d = float(layers.reference[column]) + depth
    half_height = half_width * _within(form.aspect, tall)
    return Structure(form.kind, s, d, half_width, half_height, 0.8 * slant - 0.4, form.inside)


def _within(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share
