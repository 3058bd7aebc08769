"""What a scene shows, apart from its seed. Paired scenes have the same seed and differ in one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from melanoma_infer.errors import UsageError
from melanoma_infer.phantom.styles import STYLES

Kind = Literal["melanoma", "nevus", "none"]
Case = Literal[
    "thick-horn", "papillomatous", "polypoid", "curved", "unpigmented", "dark", "large", "infiltrate", "melanophages",
    "on-nevus", "ulcerated", "ink", "fold", "blur",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
CASES: tuple[Case, ...] = get_args(Case)
"""Hard cases. `dark` and `large` are for nevi and melanomas alike; `on-nevus` puts a nevus beside a melanoma."""
SECTIONS_MAX = 4
DEPTH_MM = (0.2, 8.0)
"""Least and largest Breslow thickness. Skin that is too thin for it caps it (`truth` says what was drawn)."""
WIDTH_MM = (0.5, 12.0)
"""Least and largest width. A third of the section caps it."""


@dataclass(frozen=True)
class Options:
    """A scene's options; None: the seed decides."""

    style: str = "A"
    cases: frozenset[Case] = frozenset()
    depth_mm: float | None = None
    """Breslow thickness of a melanoma, in its thickest section."""
    sections: int = 1
    """Serial sections on the slide."""
    angle_deg: float = 0.0
    """Direction of the skin on the slide; at 0 its surface is up."""
    width_mm: float | None = None
    """Width of a melanoma's invasive part along the skin."""

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UsageError(f"There is no phantom style {self.style!r}. Choose one of {', '.join(STYLES)}.")
        if unknown := sorted(self.cases - set(CASES)):
            raise UsageError(f"There is no hard case {unknown[0]!r}. Choose among {', '.join(CASES)}.")
        if not 1 <= self.sections <= SECTIONS_MAX:
            raise UsageError(f"A slide with {self.sections} sections cannot be drawn. Choose 1 to {SECTIONS_MAX}.")
        least, most = DEPTH_MM
        if self.depth_mm is not None and not least <= self.depth_mm <= most:
            raise UsageError(f"A melanoma of {self.depth_mm:g} mm cannot be drawn. Choose {least:g} to {most:g} mm.")
        least, most = WIDTH_MM
        if self.width_mm is not None and not least <= self.width_mm <= most:
            raise UsageError(
                f"A melanoma that is {self.width_mm:g} mm wide cannot be drawn. Choose {least:g} to {most:g} mm."
            )
        if not -360 <= self.angle_deg <= 360:
            raise UsageError(f"--angle {self.angle_deg:g}: choose -360 to 360 degrees.")
