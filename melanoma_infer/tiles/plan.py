"""The plan of a slide: its scale, its tissue, its tiles, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import ModelCard
from melanoma_infer.geometry import Scale, SizePx
from melanoma_infer.records import Identity, SlideFacts, Tile, Tissue
from melanoma_infer.runtime.stopwatch import Stopwatch
from melanoma_infer.settings import Settings
from melanoma_infer.slides.choice import ReaderChoice, TileSource, choose_reader
from melanoma_infer.slides.members import identify
from melanoma_infer.slides.scale import KnownScale, known_scale
from melanoma_infer.slides.slide import Slide
from melanoma_infer.tiles.grid import Geometry, place_tiles, require_few_enough, require_sensible_tiles, tile_geometry
from melanoma_infer.tiles.read_plan import ReadPlan, read_plan
from melanoma_infer.tiles.same_picture import require_same_picture
from melanoma_infer.tiles.tissue import find_tissue

PROBED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The tiles on which two readers are compared, as positions in the list of all tiles."""


@dataclass(frozen=True)
class SlidePlan:
    """What is decided about a slide before its tiles are read."""

    facts: SlideFacts
    """By the reader that decodes the tiles."""
    identity: Identity
    settings: Settings
    scale: KnownScale
    tissue: Tissue
    geometry: Geometry
    reading: ReadPlan
    tiles: tuple[Tile, ...]
    source: TileSource | None = None
    """Opens a handle for each reading thread; None for a plan of tiles that are not read from a file."""

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue."""
        return self._mm2(self.tissue.mask)

    @property
    def ink_mm2(self) -> float:
        """Area that was excluded as pen ink."""
        return self._mm2(self.tissue.ink)

    def _mm2(self, mask: NDArray[np.bool_]) -> float:
        return float(mask.sum()) * self.tissue.px_l0**2 * self.scale.scale.pixel_mm2


def plan_slide(
    slide: Slide,
    card: ModelCard,
    settings: Settings,
    *,
    reader: ReaderChoice = "auto",
    identity: Identity | None = None,
    watch: Stopwatch | None = None,
) -> SlidePlan:
    """The plan of an open slide: scale, tissue, grid, and the reader of its tiles.

    Args:
        slide: from open_slide.
        card: says how large tiles are and how they are read.
        settings: what differs from the card.
        reader: who decodes the tiles.
        identity: of the slide, if it is known already.
        watch: gets the time of each stage.

    Raises:
        MminferError: the slide has no known scale, the tiles asked for are too small or too many, a mask does not fit
            it, its levels differ, or the reader cannot read it.
    """
    watch = watch or Stopwatch()
    with watch.timing("open"):
        identity = identity or identify(slide.path, slide.facts.quickhash)
        known = known_scale(slide.facts, settings.mpp_um)
    bounds = slide.facts.bounds
    scanned = SizePx(bounds.width, bounds.height) if bounds else slide.facts.size_l0
    geometry = sensible_geometry(card, settings, scanned, known.scale)
    with watch.timing("tissue"):
        tissue = find_tissue(slide, known.scale, settings.tissue)
        plan = plan_tiles(slide.facts, identity, settings, known, tissue, geometry, card)
        require_same_picture(slide, tissue, (0, plan.reading.level))
    tiles, reading = plan.tiles, plan.reading
    rows = sorted({round(share * (len(tiles) - 1)) for share in PROBED} if tiles else ())
    corners = [tuple(int(at / reading.downsample) for at in (tiles[i].rect_l0.x, tiles[i].rect_l0.y)) for i in rows]
    with watch.timing("open"):
        source = choose_reader(slide, reading.level, [(x, y) for x, y in corners], reader)
    return replace(plan, facts=source.facts, source=source)


def sensible_geometry(card: ModelCard, settings: Settings, scanned: SizePx, scale: Scale) -> Geometry:
    """The tiles that the settings ask for on a scanned area.

    Raises:
        UsageError: those that the user chose are too small or too many.
    """
    geometry = tile_geometry(card, settings)
    if _chosen_by_user(settings):
        require_sensible_tiles(geometry, scanned, scale)
    return geometry


def plan_tiles(
    facts: SlideFacts,
    identity: Identity,
    settings: Settings,
    known: KnownScale,
    tissue: Tissue,
    geometry: Geometry,
    card: ModelCard,
) -> SlidePlan:
    """The plan of a slide whose tissue is known, still without a source of pixels.

    Raises:
        UsageError: the tiles asked for are too many, or too coarse for the slide.
    """
    tiles = tuple(place_tiles(facts.size_l0, known.scale, tissue, geometry))
    if _chosen_by_user(settings):
        require_few_enough(len(tiles), geometry)
    reading = read_plan(facts, known.scale, geometry, card)
    return SlidePlan(facts, identity, settings, known, tissue, geometry, reading, tiles)


def _chosen_by_user(settings: Settings) -> bool:
    return settings.tile_um is not None or settings.stride_um is not None
