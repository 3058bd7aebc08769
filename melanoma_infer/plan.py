"""What was decided of a slide before its tiles are read."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_infer.reading import ReadPlan
from melanoma_infer.records import Identity, SlideFacts, Tile, Tissue
from melanoma_infer.slides.scale import KnownScale
from melanoma_infer.tiling import Geometry, TissueArea


@dataclass(frozen=True)
class SlidePlan:
    """A slide's identity, scale, tissue and tiles, and how they are read."""

    facts: SlideFacts
    identity: Identity
    scale: KnownScale
    tissue: Tissue
    geometry: Geometry
    reading: ReadPlan
    tiles: tuple[Tile, ...]

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue."""
        return TissueArea(self.tissue).total_l0 * self.scale.scale.pixel_mm2

    @property
    def ink_mm2(self) -> float:
        """Area that was left out as pen ink."""
        return float(self.tissue.ink.sum()) * self.tissue.px_l0**2 * self.scale.scale.pixel_mm2
