"""Calibration tiles for an int8 export, from the user's slides and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_infer.cli.requests import checked_settings
from melanoma_infer.errors import SlideUnreadableError, UsageError
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from melanoma_infer.bundle.bundle import Bundle

TILES_MAX = 32
"""Of all slides together, and of the images: with twice as many, no range changed by more than a few percent."""


@dataclass(frozen=True)
class CalibrationOptions:
    """What the options say about the tiles that set int8's ranges, in addition to drawn ones."""

    slides: Sequence[Path]
    images: Sequence[Path]
    """Tiles as files, and folders of them."""
    mpp: str | None
    tile_um: float | None

    @property
    def given(self) -> bool:
        """Whether any option was given."""
        return bool(self.slides or self.images or self.mpp is not None or self.tile_um is not None)

    def require_slides(self) -> None:
        """Raise UsageError for an option about slides without a slide."""
        if not self.slides and (self.mpp is not None or self.tile_um is not None):
            raise UsageError(
                "--mpp and --tile-um are about the calibration slides. Give at least one --calibration SLIDE."
            )


def calibration_tiles(
    options: CalibrationOptions, bundle: Bundle, images: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], str] | None:
    """The tiles uint8 (N, px, px, 3), and their number in words; None if no option names any.

    Args:
        options: which slides, and how to read them.
        bundle: the tiles are of its card.
        images: the pixels of `options.images`.

    Raises:
        SlideUnreadableError: a slide has no readable tile with tissue.
        ScaleUnknownError: a slide's scale is not known.
    """
    import numpy as np

    parts, words = [], []
    if options.slides:
        parts.append(_of_slides(options, bundle))
        words.append(f"{plural(len(parts[-1]), 'tile')} of {plural(len(options.slides), 'slide')}")
    if images is not None:
        parts.append(images[_spread(len(images), TILES_MAX)])
        words.append(f"{len(parts[-1])} of the author's tiles")
    return (np.concatenate(parts), ", ".join(words)) if parts else None


def _of_slides(options: CalibrationOptions, bundle: Bundle) -> NDArray[np.uint8]:
    """At most TILES_MAX tiles with tissue, evenly spread over the slides."""
    import numpy as np

    from melanoma_infer.runtime.cores import available_cores, reader_count
    from melanoma_infer.slides import open_slide
    from melanoma_infer.tiles.feed import Feed
    from melanoma_infer.tiles.plan import plan_slide
    from melanoma_infer.tiles.reading import read_tiles

    settings = checked_settings(options.mpp, tile_um=options.tile_um)
    pixels = []
    for path in options.slides:
        with open_slide(path) as slide:
            plan = plan_slide(slide, bundle.card, settings)
            rows = _spread(len(plan.tiles), max(1, TILES_MAX // len(options.slides)))
            wanted, feed = [plan.tiles[row] for row in rows], Feed(reader_count(available_cores()))
            with read_tiles(slide, plan, feed, tiles=wanted) as reads:
                found = [read.pixels for read in reads if read.pixels is not None]
        if not found:
            raise SlideUnreadableError(
                f"The calibration slide {path.stem} has no readable tile with tissue. Give another --calibration."
            )
        pixels += found
    return np.stack(pixels)


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `count`, evenly spread, the first and the last among them."""
    import numpy as np

    return sorted({int(row) for row in np.linspace(0, count - 1, min(wanted, count))})
