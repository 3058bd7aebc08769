"""The tiles that engines are compared on: the golden ones, those of drawn slides, or those of the user's slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.errors import SlideUnreadableError
from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.runtime.cores import reader_count
from melanoma_infer.runtime.plural import plural
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.plan import plan_slide
from melanoma_infer.tiles.reading import read_tiles
from melanoma_infer.verification.differences import SampleSlide

DRAWN_SLIDES = 8
SEED = 5_000
"""Seed of the first drawn slide, plus one for each next: far from the seeds that bundles are made with."""
SLIDE_UM = (9000.0, 6000.0)
TILES_A_SLIDE = 6
FINE_UM = 256.0
"""Every second pair of slides has tiles no larger than this, where textures fill a tile."""
SLIDE_TILES_MAX = 400
"""Most tiles taken from a user's slide: more cost minutes and say no more about an engine."""


@dataclass(frozen=True)
class Sample:
    """Tiles uint8 (N, tile_px, tile_px, 3), the golden ones first, and the slides that the others belong to."""

    tiles: NDArray[np.uint8]
    slides: tuple[SampleSlide, ...]
    golden: int
    on: str
    """The tiles in words."""

    def only_golden(self) -> Sample:
        """The golden tiles alone."""
        return Sample(self.tiles[: self.golden], (), self.golden, plural(self.golden, "golden tile"))


def drawn_sample(bundle: Bundle, slides: int = DRAWN_SLIDES) -> Sample:
    """The golden tiles and six tiles of each drawn slide; every second slide has a melanoma.

    The six are along the section, centred alternately above and below its middle line.
    """
    card, drawn = bundle.card, []
    for number in range(slides):
        scene = make_scene(SEED + number, "none" if number % 2 else "melanoma", SLIDE_UM)
        side_um = min(card.tile_side_um, SLIDE_UM[1] / 2, SLIDE_UM[1] / 2 if number % 4 < 2 else FINE_UM)
        um_per_px = side_um / card.tile_px
        section, rects = scene.sections[0], []
        for i in range(TILES_A_SLIDE):
            along = np.array([(i + 0.5) / TILES_A_SLIDE * section.frame.length_um])
            down = np.array([(0.25, 0.6)[i % 2] * section.skin.thickness_um])
            x, y = (max(0.0, float(middle[0]) - side_um / 2) for middle in section.frame.slide(along, down))
            rects.append(RectPx(round(x / um_per_px), round(y / um_per_px), card.tile_px, card.tile_px))
        drawn.append((np.stack([draw(scene, rect, um_per_px) for rect in rects]), (side_um / 1000) ** 2))
    return _sample(bundle, drawn, plural(slides, "drawn slide"))


def slide_sample(bundle: Bundle, path: Path, settings: Settings, *, threads: int) -> Sample:
    """The golden tiles and at most SLIDE_TILES_MAX tiles of a slide, evenly spaced.

    Raises:
        MminferError: the slide cannot be opened or its scale is unknown.
        SlideUnreadableError: it has no tile with tissue that can be read.
    """
    with open_slide(path) as slide:
        plan = plan_slide(slide, bundle.card, settings)
        count = len(plan.tiles)
        evenly = {int(i) for i in np.linspace(0, count - 1, min(count, SLIDE_TILES_MAX))}
        chosen = [plan.tiles[i] for i in sorted(evenly)]
        with read_tiles(slide, plan, Feed(reader_count(threads)), tiles=chosen) as reads:
            pixels = [read.pixels for read in reads if read.pixels is not None]
    if not pixels:
        raise SlideUnreadableError("The slide has no tile with tissue that can be read. Verify on another slide.")
    return _sample(bundle, [(np.stack(pixels), plan.geometry.tile_mm2)], f"{plural(len(pixels), 'tile')} of a slide")


def _sample(bundle: Bundle, parts: Sequence[tuple[NDArray[np.uint8], float]], on: str) -> Sample:
    golden = bundle.golden.tiles
    slides: list[SampleSlide] = []
    first = len(golden)
    for tiles, tile_mm2 in parts:
        slides.append(SampleSlide(tuple(range(first, first + len(tiles))), tile_mm2))
        first += len(tiles)
    every = np.concatenate([golden, *(tiles for tiles, _ in parts)])
    return Sample(every, tuple(slides), len(golden), f"{plural(len(golden), 'golden tile')}, {on}")
