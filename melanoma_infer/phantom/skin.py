"""The layers of the skin in a section: their borders as depths d in µm, one for each µm along the strip.

Nothing here depends on the lesion, except that an ulcer is a property of the skin and removes the epidermis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.phantom.noise import draws, stream, wave
from melanoma_infer.phantom.options import Options

Curve = NDArray[np.float64]

_SURFACE, _EPIDERMIS, _DERMIS, _ULCER, _SHAPE = 100, 200, 300, 350, 380
"""Keys for the uses of random numbers (`noise.stream`); each use also owns the numbers that follow."""
ROUNDING_UM = 150.0
"""Width over which the section's lower corners are rounded."""


@dataclass(frozen=True, eq=False)
class Layers:
    """Borders from top to bottom, at the middle of each µm of s; where a layer is missing, two coincide.

    `reference` is the top of the granular layer, or the ulcer's base where `ulcer`: depth is measured from it.
    """

    s_um: Curve
    top: Curve
    reference: Curve
    granular_end: Curve
    junction: Curve
    papillary_end: Curve
    fat: Curve
    bottom: Curve
    ulcer: NDArray[np.bool_]


@dataclass(frozen=True)
class Skin:
    """A strip of skin: its seed, length and thickness in µm, the middle of its lesion site, which serial section."""

    seed: int
    length_um: float
    thickness_um: float
    site_um: float
    number: int


class Waves:
    """Smooth noise along a strip; in later serial sections three quarters of it are those of the first."""

    def __init__(self, skin: Skin, s_um: Curve) -> None:
        self.skin, self.s_um = skin, s_um

    def __call__(self, cell_um: float, use: int) -> Curve:
        """Noise in [0, 1) with cells of this length."""
        u = self.s_um / cell_um
        first = wave(u, stream(self.skin.seed, use))
        if self.skin.number == 0:
            return first
        mixed: Curve = 0.75 * first + 0.25 * wave(u, stream(self.skin.seed + self.skin.number, use + 5000))
        return mixed


def positions(length_um: float) -> Curve:
    """The middle of each µm along a strip."""
    middles: Curve = np.arange(int(length_um), dtype=np.float64) + 0.5
    return middles


def layers_of(skin: Skin, options: Options) -> Layers:
    """The borders of the layers of a strip."""
    s = positions(skin.length_um)
    waves, cases, thickness = Waves(skin, s), options.cases, skin.thickness_um
    surface = 0.07 * min(thickness, 2500) * (waves(0.5 * thickness, _SURFACE) - 0.5)
    surface += 45 * (waves(230, _SURFACE + 1) - 0.5) + 14 * (waves(55, _SURFACE + 2) - 0.5)
    shape = draws(6, stream(skin.seed, _SHAPE))
    away = s - skin.site_um
    if "polypoid" in cases:
        surface -= _dome(
            away, min(0.45 * thickness, 700 + 900 * shape[0]), min(700 + 700 * shape[1], skin.length_um / 5)
        )
    if "papillomatous" in cases:
        window = _eased(1.6 - np.abs(away) / min(1100 + 500 * shape[2], skin.length_um / 5))
        high = min(150 + 170 * shape[3], 0.1 * thickness)
        surface -= window * high * (_eased(2 * waves(150 + 90 * shape[4], _SURFACE + 3) - 0.5) - 0.3)
    horn = 7 + 14 * waves(45, _EPIDERMIS)
    if "thick-horn" in cases:
        horn = horn + min(90 + 170 * shape[5], 0.12 * thickness) * (0.4 + 0.6 * waves(300, _EPIDERMIS + 4))
    granular = 7 + 7 * waves(60, _EPIDERMIS + 3)
    pegs = _eased(1.25 * waves(78, _EPIDERMIS + 1) - 0.1) * (0.2 + 0.8 * waves(700, _EPIDERMIS + 2))
    epidermis = 34 + 16 * waves(400, _EPIDERMIS + 5) + 112 * pegs
    papillary = 130 + 90 * waves(500, _DERMIS + 1) + 40 * waves(70, _DERMIS + 3)
    fat = thickness * (0.62 + 0.2 * waves(900, _DERMIS + 2)) + 70 * waves(160, _DERMIS + 4)
    from_end = np.minimum(s, skin.length_um - s) / min(ROUNDING_UM, skin.length_um / 4)
    rounding = np.clip(from_end, 0, 1)
    floor = thickness * (0.92 + 0.08 * waves(1400, _DERMIS)) + 24 * waves(60, _DERMIS + 5)
    bottom = surface + (floor - np.minimum(surface, 0)) * np.sqrt(rounding * (2 - rounding))
    ulcer = np.zeros(len(s), np.bool_)
    reference = surface
    top = surface - horn
    if "ulcerated" in cases:
        ulcer, base = _ulcer(skin, s, epidermis, waves)
        reference = np.where(ulcer, surface + base, surface)
        crust = 12 + 55 * waves(130, _ULCER + 4) * waves(35, _ULCER + 5)
        top = np.where(ulcer, reference - crust, top)
    granular_end = np.where(ulcer, reference, surface + granular)
    junction = np.where(ulcer, reference, surface + epidermis)
    papillary_end = np.maximum(surface + np.maximum(papillary, epidermis + 25), reference + 25)
    return Layers(
        s_um=s,
        top=np.minimum(top, bottom),
        reference=np.minimum(reference, bottom),
        granular_end=np.minimum(granular_end, bottom),
        junction=np.minimum(junction, bottom),
        papillary_end=np.minimum(papillary_end, bottom),
        fat=np.minimum(np.maximum(fat, papillary_end), bottom),
        bottom=bottom,
        ulcer=ulcer,
    )


def _ulcer(skin: Skin, s: Curve, epidermis: Curve, waves: Waves) -> tuple[NDArray[np.bool_], Curve]:
    """Where the epidermis is missing, and how deep below the surface the ulcer's base is."""
    place, wide, deep = draws(3, stream(skin.seed, _ULCER))
    half = min(220 + 480 * wide, skin.length_um / 8)
    x = (s - skin.site_um - 250 * (2 * place - 1)) / half
    inside = np.abs(x) < 1
    crater = np.maximum(1 - x * x, 0) * (30 + 110 * deep) * (0.7 + 0.6 * waves(110, _ULCER + 3))
    return inside, epidermis + crater


def _dome(away_um: Curve, high_um: float, half_um: float) -> Curve:
    """A dome with steep sides: (1 − x⁴)² over its width."""
    x = away_um / half_um
    x *= x
    side = np.maximum(1 - x * x, 0)
    return high_um * side * side


def _eased(t: Curve) -> Curve:
    """0 up to 0, 1 from 1, smooth between."""
    t = np.clip(t, 0, 1)
    eased: Curve = t * t * (3 - 2 * t)
    return eased
