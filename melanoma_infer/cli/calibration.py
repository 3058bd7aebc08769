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
    """At most TILES_MAX tiles with tissue, uint8 (N, px, px, 3), evenly spread over the slides; their number in words.

    Raises:
        SlideUnreadableError: a slide has no readable tile with tissue.
    """
    import numpy as np

    from melanoma_infer.runtime.cores import available_cores
    from melanoma_infer.slides import open_slide
    from melanoma_infer.tiles.plan import plan_slide
    from melanoma_infer.tiles.reading import read_tiles

    settings = checked_settings(None, tile_um=tile_um)
    pixels = []
    for path in slides:
        with open_slide(path) as slide:
            plan = plan_slide(slide, bundle.card, settings)
            wanted = min(max(1, TILES_MAX // len(slides)), len(plan.tiles))
            rows = sorted({int(row) for row in np.linspace(0, len(plan.tiles) - 1, wanted)})
            with read_tiles(slide, plan, tiles=[plan.tiles[row] for row in rows], threads=available_cores()) as reads:
                found = [read.pixels for read in reads if read.pixels is not None]
        if not found:
            raise SlideUnreadableError(
                f"The calibration slide {path.stem} has no readable tile with tissue. Give another --calibration."
            )
        pixels += found
    return np.stack(pixels), f"{plural(len(pixels), 'tile')} of {plural(len(slides), 'slide')}"
