"""Colours: amounts of stains and pigments in each tissue → optical density → RGB, as tables.

Tables of whole numbers, because powers of ten differ in the last bit between processors: TRANSMITTED is 10^(−k / 512)
by repeated multiplication.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.phantom.labels import Label
from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.styles import STYLES, Channels, Style

Rgb = NDArray[np.uint8]
Amounts = tuple[float, float, float]
"""Haematoxylin, eosin, and a pigment: melanin, but blood in vessels and ink on edges."""

TONES = 256
OD_STEPS = 512
_RATIO = 0.9955128609158502
"""10^(−1 / OD_STEPS)."""
_JITTER = 900

MELANIN: Channels = (0.46, 0.68, 0.88)
BLOOD: Channels = (0.06, 0.55, 0.60)
INK: Channels = (0.95, 0.62, 0.30)
PIGMENTS = {Label.BLOOD: BLOOD, Label.INK: INK}

# At tones 0, ½ and 1: gaps, usual and dense tissue.
TISSUE: dict[Label, tuple[Amounts, Amounts, Amounts]] = {
    Label.BACKGROUND: ((0, 0, 0),) * 3,
    Label.HORN: ((0.01, 0.02, 0), (0.20, 0.36, 0), (0.55, 0.66, 0)),
    Label.GRANULAR: ((0.22, 0.24, 0), (0.42, 0.32, 0), (0.72, 0.40, 0)),
    Label.EPIDERMIS: ((0.16, 0.18, 0), (0.30, 0.27, 0), (0.44, 0.36, 0)),
    Label.PAPILLARY_DERMIS: ((0.02, 0.05, 0), (0.08, 0.24, 0), (0.17, 0.40, 0)),
    Label.RETICULAR_DERMIS: ((0.00, 0.02, 0), (0.09, 0.33, 0), (0.19, 0.50, 0)),
    Label.FAT: ((0.00, 0.01, 0), (0.05, 0.16, 0), (0.14, 0.40, 0)),
    Label.BACKGROUND_BELOW: ((0, 0, 0),) * 3,
    Label.CRUST: ((0.08, 0.30, 0), (0.22, 0.52, 0.04), (0.50, 0.72, 0.10)),
    Label.VESSEL: ((0.06, 0.18, 0), (0.16, 0.32, 0), (0.28, 0.44, 0)),
    Label.BLOOD: ((0.00, 0.02, 0.02), (0.02, 0.10, 0.50), (0.04, 0.16, 0.78)),
    Label.ADNEXA: ((0.20, 0.20, 0), (0.34, 0.26, 0), (0.50, 0.34, 0)),
    Label.KERATIN: ((0.02, 0.06, 0), (0.16, 0.42, 0), (0.42, 0.62, 0)),
    Label.LUMEN: ((0.00, 0.01, 0), (0.02, 0.06, 0), (0.05, 0.14, 0)),
    Label.SEBACEOUS: ((0.02, 0.03, 0), (0.08, 0.11, 0), (0.22, 0.24, 0)),
    Label.LYMPHOCYTES: ((0.06, 0.14, 0), (0.20, 0.22, 0), (0.40, 0.28, 0)),
    Label.MELANOPHAGE: ((0.10, 0.16, 0.20), (0.14, 0.20, 0.50), (0.20, 0.24, 0.95)),
    Label.NEVUS: ((0.12, 0.16, 0), (0.31, 0.26, 0), (0.46, 0.32, 0)),
    Label.MELANOMA_IN_SITU: ((0.12, 0.12, 0), (0.24, 0.20, 0), (0.38, 0.26, 0)),
    Label.MELANOMA: ((0.01, 0.07, 0), (0.27, 0.23, 0), (0.46, 0.30, 0)),
    Label.INK: ((0.05, 0.20, 0.50), (0.05, 0.20, 0.95), (0.05, 0.20, 1.50)),
}  # fmt: skip
NUCLEI: dict[Label, Amounts] = {
    Label.GRANULAR: (0.95, 0.35, 0),
    Label.EPIDERMIS: (0.78, 0.30, 0),
    Label.ADNEXA: (0.88, 0.30, 0),
    Label.SEBACEOUS: (0.80, 0.30, 0),
    Label.LYMPHOCYTES: (1.20, 0.30, 0),
    Label.NEVUS: (0.92, 0.30, 0),
    Label.MELANOMA_IN_SITU: (0.90, 0.30, 0),
    Label.MELANOMA: (0.90, 0.30, 0),
    Label.CRUST: (1.10, 0.40, 0),
}
USUAL_NUCLEUS: Amounts = (1.00, 0.38, 0)


class Palette:
    """A scene's colours: of tissue (labels · 256 tones, 3), and of nuclei and pigment in each tissue (labels, 3)."""

    def __init__(self, style: Style, seed: int) -> None:
        first, second, third, warm = (2 * value - 1 for value in draws(4, stream(seed, _JITTER)))
        strength = (
            style.strength[0] * (1 + 0.16 * first),
            style.strength[1] * (1 + 0.16 * second),
            1 + 0.08 * third,
        )
        white = tuple(round(level + 2.5 * warm * slope) for level, slope in zip(style.white, (1, 0, -1), strict=True))
        self.white = np.array(white, np.uint8)
        self._style, self._strength = style, strength
        share = (np.arange(TONES) / (TONES - 1))[:, None]
        rows = []
        for label in Label:
            gap, usual, dense = (np.array(amounts) for amounts in TISSUE[label])
            amounts = np.where(
                share < 0.5, gap + (usual - gap) * (2 * share), usual + (dense - usual) * (2 * share - 1)
            )
            rows.append(self._colours(amounts, label))
        self.tissue = np.concatenate(rows)
        self.nuclei = np.concatenate(
            [self._colours(np.array([NUCLEI.get(label, USUAL_NUCLEUS)]), label) for label in Label]
        )
        self.pigment = np.concatenate([self._colours(np.array([(0.3, 0.2, 0.95)]), Label.MELANOPHAGE) for _ in Label])

    def _colours(self, amounts: NDArray[np.float64], label: Label) -> Rgb:
        """RGB (n, 3) of amounts (n, 3)."""
        vectors = self._style.haematoxylin, self._style.eosin, PIGMENTS.get(label, MELANIN)
        colours = np.empty((len(amounts), 3), np.uint8)
        for channel in range(3):
            density = np.zeros(len(amounts))
            for stain in range(3):
                density = density + amounts[:, stain] * (self._strength[stain] * vectors[stain][channel])
            steps = np.minimum((density * OD_STEPS + 0.5).astype(np.int64), len(TRANSMITTED) - 1)
            colours[:, channel] = (TRANSMITTED[steps] * int(self.white[channel]) + 0.5).astype(np.uint8)
        return colours


@lru_cache(maxsize=64)
def palette_of(style: str, seed: int) -> Palette:
    """The colours of a scene."""
    return Palette(STYLES[style], seed)


def _transmitted() -> NDArray[np.float64]:
    values, value = [], 1.0
    for _ in range(4 * OD_STEPS):
        values.append(value)
        value *= _RATIO
    return np.array(values)


TRANSMITTED = _transmitted()
