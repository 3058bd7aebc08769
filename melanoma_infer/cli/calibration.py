"""Calibration tiles for an int8 export, from the user's slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_infer.cli.console import plural
from melanoma_infer.cli.requests import checked_settings
from melanoma_infer.errors import SlideUnreadableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from melanoma_infer.bundle.bundle import Bundle

TILES_MAX = 32
"""For all slides together: with twice as many, no range changed by more than a few percent."""


def calibration_tiles(slides: Sequence[Path], bundle: Bundle, tile_um: float | None) -> tuple[NDArray[np.uint8], str]:
    """At most TILES_MAX tiles uint8 (N, px, px, 3), the same number from each slide; and their number in words."""
    import numpy as np

    per_slide = max(1, TILES_MAX // len(slides))
    pixels = np.concatenate([_tiles_of(slide, bundle, tile_um, per_slide) for slide in slides])
    return pixels, f"{len(pixels)} tiles of {plural(len(slides), 'slide')}"


def _tiles_of(path: Path, bundle: Bundle, tile_um: float | None, wanted: int) -> NDArray[np.uint8]:
    """Tiles with tissue, evenly spread over the slide."""
    import numpy as np

    from melanoma_infer.runtime.cores import available_cores
    from melanoma_infer.slides import open_slide
    from melanoma_infer.tiles.plan import plan_slide
    from melanoma_infer.tiles.reading import read_tiles

    with open_slide(path) as slide:
        plan = plan_slide(slide, bundle.card, checked_settings(None, tile_um=tile_um))
        rows = sorted({int(row) for row in np.linspace(0, len(plan.tiles) - 1, min(wanted, len(plan.tiles)))})
        with read_tiles(slide, plan, tiles=[plan.tiles[row] for row in rows], threads=available_cores()) as reads:
            pixels = [read.pixels for read in reads if read.pixels is not None]
    if not pixels:
        raise SlideUnreadableError(
            f"The calibration slide {path.stem} has no readable tile with tissue. Give another --calibration."
        )
    return np.stack(pixels)
