"""Six ways in which laboratories and scanners make the same skin look different.

A–D are for training; E and F are for headlines and lie beyond A–D, within what a colour jitter of a tenth reaches.
Optical densities are per unit of stain for red, green and blue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Style:
    """Stain, scanner and file of one laboratory."""

    haematoxylin: Channels
    eosin: Channels
    strength: tuple[float, float]
    """Amounts of the two stains, relative to the usual."""
    white: tuple[int, int, int]
    """The background's RGB: the scanner's white balance."""
    noise: float
    """Amplitude of the sensor's noise in grey levels at 0.5 µm/px."""
    grain: float
    """Scale of the textures relative to the usual: thin or thick sections, fixation."""
    uneven: float
    """How much the stain's strength varies over a slide."""
    sharpen: int
    """Sharpening in 64ths of the difference from the neighbours' mean."""
    quality: int
    """JPEG quality of a slide's tiles."""


STYLES: Mapping[str, Style] = {
    "A": Style((0.62, 0.72, 0.34), (0.12, 0.76, 0.48), (1.00, 1.00), (245, 243, 244), 2.0, 1.00, 0.10, 8, 90),
    "B": Style((0.57, 0.74, 0.36), (0.09, 0.84, 0.50), (0.90, 1.15), (241, 240, 238), 3.0, 1.08, 0.14, 0, 80),
    "C": Style((0.68, 0.66, 0.32), (0.16, 0.74, 0.34), (1.15, 0.88), (247, 246, 248), 1.5, 0.94, 0.08, 20, 92),
    "D": Style((0.64, 0.70, 0.25), (0.08, 0.72, 0.52), (0.85, 0.90), (238, 236, 240), 4.0, 1.03, 0.18, 12, 75),
    "E": Style((0.60, 0.69, 0.28), (0.15, 0.84, 0.46), (1.06, 1.08), (244, 240, 236), 2.5, 0.97, 0.12, 26, 85),
    "F": Style((0.66, 0.74, 0.35), (0.11, 0.77, 0.36), (0.94, 0.84), (236, 238, 243), 3.5, 1.11, 0.16, 4, 70),
}  # fmt: skip
TRAINING_STYLES, HEADLINE_STYLES = ("A", "B", "C", "D"), ("E", "F")
