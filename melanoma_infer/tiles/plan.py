"""What is decided of a slide before its tiles are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.records import Identity, SlideFacts, Tile, Tissue
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.settings import Settings
from melanoma_infer.slides.choice import ReaderChoice, choose_reader
from melanoma_infer.slides.completeness import require_complete
from melanoma_infer.slides.members import identify
from melanoma_infer.slides.retrying import RetryingReader
from melanoma_infer.slides.scale import KnownScale, known_scale
from melanoma_infer.tiles.grid import Geometry, place_tiles, tile_geometry
from melanoma_infer.tiles.reading import ReadPlan, read_plan
from melanoma_infer.tiles.tissue import find_tissue

PROBED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Which tiles two readers are compared on, as shares of all."""


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
        return self._mm2(self.tissue.mask)

    @property
    def ink_mm2(self) -> float:
        """Area that was left out as pen ink."""
        return self._mm2(self.tissue.ink)

    def _mm2(self, mask: NDArray[np.bool_]) -> float:
        return float(mask.sum()) * self.tissue.px_l0**2 * self.scale.scale.pixel_mm2


def plan_slide(
    path: Path,
    card: ModelCard,
    settings: Settings,
    *,
    reader: ReaderChoice = "auto",
    watch: Stopwatch | None = None,
    identity: Identity | None = None,
) -> SlidePlan:
    """What will be read of a slide, and by whom: its scale, its tissue and its tiles.

    Raises:
        MminferError: the slide cannot be opened, is incomplete, or has no known scale; a mask does not fit it.
    """
    watch = watch or Stopwatch()
    with watch.timing("open"):
        slide = RetryingReader(path)
    with slide:
        with watch.timing("open"):
            require_complete(path)
            identity = identity or identify(path, slide.facts.quickhash)
            known = known_scale(slide.facts, settings.mpp_um)
        geometry = tile_geometry(card, settings)
        with watch.timing("tissue"):
            tissue = find_tissue(slide, known.scale, settings.tissue)
            tiles = tuple(place_tiles(slide.facts.size_l0, known.scale, tissue, geometry))
        reading = read_plan(slide.facts, known.scale, geometry, card)
    with watch.timing("open"):
        facts = choose_reader(path, slide.facts, reading.level, _probe_points(tiles, reading), reader)
    return SlidePlan(facts, identity, known, tissue, geometry, reading, tiles)


def _probe_points(tiles: Sequence[Tile], reading: ReadPlan) -> Iterator[tuple[int, int]]:
    """(x, y) in level pixels: some tiles' upper left corners, from the first to the last."""
    for row in sorted({round(share * (len(tiles) - 1)) for share in PROBED} if tiles else ()):
        rect_l0 = tiles[row].rect_l0
        yield int(rect_l0.x / reading.downsample), int(rect_l0.y / reading.downsample)
