"""Textures: at places in a tissue, its tone (0 gaps, ½ usual, 1 dense), how much nucleus and how much pigment.

Each is smooth noise, stretched and warped, with discs for nuclei. Details smaller than a pixel are drawn as their mean,
so a level of the pyramid looks like the finer level seen from further away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from melanoma_infer.phantom.labels import Label
from melanoma_infer.phantom.noise import Discs, Field, discs, smooth, stream, sway


@dataclass(frozen=True, eq=False)
class Places:
    """Places of one tissue: strip coordinates in µm, 1-D. `above_um` is how far each is above the junction."""

    seed: int
    um_per_px: float
    s_um: Field
    d_um: Field
    above_um: Field
    below_um: Field
    """How far each is below the surface."""
    pigment: float
    """How much pigment the scene's melanocytes make, 0–1."""

    def noise(self, s_cell: float, d_cell: float, use: int, *, along: Field | None = None) -> Field:
        """Smooth noise, flattened to its mean if its cells are smaller than pixels."""
        seen = _visible(min(s_cell, d_cell), self.um_per_px)
        if seen == 0:
            return np.full(self.s_um.shape, 0.5, np.float32)
        d = self.d_um if along is None else along
        noise = smooth(self.s_um * (1 / s_cell), d * (1 / d_cell), stream(self.seed, use))
        if seen < 1:
            noise -= 0.5
            noise *= seen
            noise += 0.5
        return noise

    def sharp(self, s_cell: float, d_cell: float, use: int, *, along: Field | None = None) -> Field:
        """Smooth noise at its full contrast, for tones that are not proportional to it: fade those."""
        return smooth(
            self.s_um * (1 / s_cell), (self.d_um if along is None else along) * (1 / d_cell), stream(self.seed, use)
        )

    def fade(self, tone: Field, feature_um: float, mean: float) -> Field:
        """A tone whose features are this large, faded to its mean where they are smaller than pixels."""
        seen = _visible(feature_um, self.um_per_px)
        if seen < 1:
            tone -= mean
            tone *= seen
            tone += mean
        return tone

    def warp(self, cell: float, width: float, use: int) -> Field:
        """A smooth shift in µm, ±width / 2; none if it is smaller than half a pixel."""
        if width < 0.5 * self.um_per_px:
            return np.zeros(self.s_um.shape, np.float32)
        shift = sway(self.s_um * (1 / cell), self.d_um * (1 / cell), stream(self.seed, use))
        shift *= width
        return shift

    def nuclei(self, form: Discs, use: int, *, stretch: float = 1, along: Field | None = None) -> Field:
        """Nuclei, stretched along the strip; their mean if they are smaller than pixels."""
        seen = _visible(2 * form.radius_um, self.um_per_px)
        if seen == 0:
            return np.full(self.s_um.shape, form.covered, np.float32)
        d = self.d_um if along is None else along
        inside = discs(self.s_um * (1 / stretch), d, stream(self.seed, use), form)
        if seen < 1:
            inside *= seen
            inside += (1 - seen) * form.covered
        return inside


Drawn = tuple[Field, Field | None, Field | None]
"""Tone, nuclei, pigment."""


def horn(at: Places) -> Drawn:
    """Wavy sheets with gaps between them."""
    along = at.d_um + at.warp(55, 16, 51)
    lines = np.abs(at.sharp(48, 5.5, 52, along=along) - 0.5)
    lines *= -3.1
    lines += 0.9
    return at.fade(np.clip(lines, 0, 1), 5.5, 0.36) + 0.3 * (at.noise(30, 30, 53) - 0.5), None, None


def granular(at: Places) -> Drawn:
    """Dark granules."""
    return 0.2 + 0.6 * at.noise(2.2, 2.2, 61), at.nuclei(Discs(13, 3.2, 0.55, tilt=0.6), 62, stretch=1.8), None


def epidermis(at: Places) -> Drawn:
    """Cells side by side: tall dark ones at the junction, large pale ones above, flat ones on top."""
    patches = at.noise(70, 50, 22)
    tone = 0.18 + 0.34 * patches + 0.18 * at.noise(3.2, 3.2, 21)
    basal = np.clip(1.25 - at.above_um * (1 / 22), 0, 1)
    tone += 0.34 * basal
    form = Discs(12.6, 4.4, 0.93, jitter=0.75, tilt=0.9)
    nuclei = at.nuclei(form, 24, along=at.d_um + at.warp(40, 12, 23))
    halo = at.nuclei(replace(form, radius_um=5.6), 24, along=at.d_um + at.warp(40, 12, 23))
    tone -= 0.22 * (halo - nuclei)
    if at.um_per_px < 4:
        row = at.nuclei(Discs(8.4, 3.9, 0.97, jitter=0.9, vary=0.2, tilt=0.5), 25, along=at.above_um * 0.72)
        near = np.clip(2.2 - at.above_um * (1 / 6.5), 0, 1)
        nuclei += near * (row - nuclei)
    pigment = basal * (0.12 + 0.38 * at.pigment) * at.noise(90, 60, 26) * at.noise(3, 3, 27) * 1.6
    return tone, nuclei, pigment


def papillae(at: Places) -> Drawn:
    """Fine fibres, loosely."""
    along = at.d_um + at.warp(60, 60, 11) + at.warp(17, 14, 15)
    fibres = at.noise(24, 4.2, 12, along=along)
    tone = 0.95 * fibres + 0.2 * at.noise(90, 90, 14) + 0.16 * at.noise(2.4, 2.4, 16) - 0.26
    nuclei = at.nuclei(Discs(13, 2.6, 0.34, tilt=0.8), 13, stretch=1.5, along=along)
    return tone, nuclei, None


def collagen(at: Places) -> Drawn:
    """Wavy bundles with pale clefts, and a few nuclei along them."""
    along = at.d_um + at.warp(330, 260, 1) + at.warp(70, 60, 2) + at.warp(22, 13, 8)
    bundles = 0.6 * at.sharp(60, 11, 3, along=along)
    bundles += 0.4 * at.sharp(23, 6.0, 6, along=along + at.warp(50, 40, 9))
    tone = 4.4 * bundles
    tone -= 1.42
    np.clip(tone, 0, 0.66, out=tone)
    tone = at.fade(tone, 9, 0.42)
    fibres = at.noise(17, 2.0, 4, along=along)
    tone += 0.34 * (fibres - 0.5) + 0.3 * (at.noise(420, 300, 7) - 0.4) + 0.16 * (at.noise(2.2, 2.2, 10) - 0.5)
    nuclei = at.nuclei(Discs(15.5, 2.0, 0.26), 5, stretch=2.6, along=along)
    return tone, nuclei, None


def fat(at: Places) -> Drawn:
    """Round pale cells with thin walls."""
    x, y = at.s_um + at.warp(110, 60, 41), at.d_um + at.warp(110, 60, 42)
    inside = replace(at, s_um=x, d_um=y).nuclei(Discs(74, 37, 1, jitter=0, vary=0.04), 43)
    return 0.72 - 0.72 * inside + 0.2 * at.noise(300, 200, 44) * (1 - inside), None, None


def vessel(at: Places) -> Drawn:
    """A wall of flat cells."""
    return 0.3 + 0.5 * at.noise(9, 6, 71), at.nuclei(Discs(10, 2.5, 0.5, tilt=0.8), 72, stretch=1.4), None


def blood(at: Places) -> Drawn:
    """Red cells, close together or apart."""
    cells = at.nuclei(Discs(7.2, 3.4, 0.9, jitter=1, vary=0.15), 73)
    crowded = np.clip(2.4 * at.noise(60, 60, 74) - 0.5, 0, 1)
    return 0.85 * cells * crowded + 0.06, None, None


def keratin(at: Places) -> Drawn:
    """Grains elongated along the surface."""
    return 0.1 + 0.85 * at.noise(6, 26, 55), None, None


def lumen(at: Places) -> Drawn:
    """Almost nothing."""
    return 0.2 + 0.5 * at.noise(12, 12, 56), None, None


def adnexa(at: Places) -> Drawn:
    """Small crowded cells."""
    tone = 0.25 + 0.4 * at.noise(30, 40, 28) + 0.2 * at.noise(3, 3, 29)
    return tone, at.nuclei(Discs(9.4, 3.5, 0.92, jitter=0.9, tilt=0.9), 30), None


def sebaceous(at: Places) -> Drawn:
    """Foamy cells with small central nuclei."""
    foam = at.noise(3.4, 3.4, 81)
    cells = at.nuclei(Discs(21, 10.4, 1, jitter=0.2, vary=0.1), 82)
    return 0.55 - 0.34 * cells + 0.35 * (foam - 0.5), at.nuclei(Discs(21, 3.0, 0.8, jitter=0.3), 82), None


def lymphocytes(at: Places) -> Drawn:
    """Small round nuclei, close together."""
    tone = 0.15 + 0.6 * at.noise(16, 16, 83)
    return tone, at.nuclei(Discs(7.8, 2.9, 0.88, jitter=1, vary=0.2), 84), None


def melanophage(at: Places) -> Drawn:
    """Coarse brown granules."""
    return 0.2 + 0.75 * at.noise(3.5, 3.5, 85), at.nuclei(Discs(20, 3, 0.5), 86), None


def nevus(at: Places) -> Drawn:
    """Small even cells in round nests that become strands and single cells with depth: maturation."""
    ripe = np.clip(at.below_um * (1 / 900), 0, 1)
    x, along = at.s_um + at.warp(90, 60, 90), at.d_um + at.warp(70, 50, 91)
    nests = replace(at, s_um=x).nuclei(Discs(54, 26.5, 0.93, jitter=1, vary=0.5, tilt=0.9), 92, along=along)
    tone = 0.22 + 0.30 * nests + 0.24 * at.noise(5, 5, 93) + 0.14 * at.noise(260, 260, 95)
    cells = at.nuclei(Discs(9.2, 3.3, 0.88, jitter=0.9, vary=0.12, tilt=0.5), 94, along=along)
    cells *= 0.25 + 0.75 * nests
    cells *= 1 - 0.3 * ripe
    pigment = (
        np.clip(1.3 - 1.5 * ripe, 0, 1)
        * at.pigment
        * (0.25 + 0.75 * at.noise(3, 3, 96))
        * (0.4 + 0.6 * at.noise(200, 120, 97))
    )
    return tone - 0.12 * ripe, cells, pigment


def melanoma(at: Places) -> Drawn:
    """Uneven nests of large uneven cells between thin septa, dark down to the base; pigment in patches."""
    x, y = at.s_um + at.warp(150, 130, 31), at.d_um + at.warp(130, 130, 41)
    turned = replace(at, s_um=0.8 * x + 0.6 * y, d_um=0.8 * y - 0.6 * x)
    septa = np.abs(0.6 * turned.sharp(100, 88, 33) + 0.4 * at.sharp(56, 52, 45) - 0.5)
    septa *= 9
    septa -= 0.12
    np.clip(septa, 0, 1, out=septa)
    loose = np.clip(3 * at.noise(330, 260, 32) - 0.7, 0.25, 1)
    tone = 0.02 + (0.44 + 0.18 * loose) * septa + 0.26 * (at.noise(8, 8, 35) - 0.2) + 0.14 * at.noise(2.4, 2.4, 40)
    along = at.d_um + at.warp(18, 12, 34)
    nuclei = at.nuclei(Discs(14.2, 5.7, 0.93, jitter=1, vary=0.5, tilt=1.1), 36, along=along)
    if at.um_per_px < 3:
        # Coarse chromatin.
        nuclei *= 0.72 + 0.5 * at.noise(2.0, 2.0, 37)
    nuclei *= septa
    patches = np.clip(3.2 * at.noise(230, 180, 38) - 1.35, 0, 1)
    pigment = patches * at.pigment * (0.2 + 0.8 * at.noise(3.4, 3.4, 39))
    return tone, nuclei, pigment


def crust(at: Places) -> Drawn:
    """Fibrin with neutrophils."""
    return 0.2 + 0.7 * at.noise(24, 7, 57), at.nuclei(Discs(9, 2.3, 0.4), 58), None


def ink(at: Places) -> Drawn:
    """Paint."""
    return at.noise(12, 12, 59), None, None


Texture = Callable[[Places], Drawn]
TEXTURES: dict[Label, Texture] = {
    Label.HORN: horn, Label.GRANULAR: granular, Label.EPIDERMIS: epidermis, Label.PAPILLARY_DERMIS: papillae,
    Label.RETICULAR_DERMIS: collagen, Label.FAT: fat, Label.CRUST: crust, Label.VESSEL: vessel, Label.BLOOD: blood,
    Label.ADNEXA: adnexa, Label.KERATIN: keratin, Label.LUMEN: lumen, Label.SEBACEOUS: sebaceous,
    Label.LYMPHOCYTES: lymphocytes, Label.MELANOPHAGE: melanophage, Label.NEVUS: nevus,
    Label.MELANOMA_IN_SITU: melanoma, Label.MELANOMA: melanoma, Label.INK: ink,
}  # fmt: skip


def _visible(feature_um: float, um_per_px: float) -> float:
    """How much of a feature is visible: all from 2.4 pixels on, nothing but its mean below 0.8."""
    return min(max((feature_um / um_per_px - 0.8) / 1.6, 0.0), 1.0)
