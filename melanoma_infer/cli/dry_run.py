"""`mminfer score --dry-run`: draw the grid of each slide, score nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_infer.cli.console import say, say_error
from melanoma_infer.errors import MminferError
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.pipeline.request import SlideRequest


def draw_grids(requests: Sequence[SlideRequest], bundle: Bundle, out: Path, *, hide_names: bool) -> list[MminferError]:
    """Write grid.png for every slide and print what would be read; return the errors of the slides that failed."""
    from melanoma_infer.reports import grid_picture
    from melanoma_infer.reports.output import OutputFolder, write_atomically
    from melanoma_infer.runtime.privacy import DIGEST_CHARS
    from melanoma_infer.slides import open_slide
    from melanoma_infer.tiles.plan import plan_slide

    failures: list[MminferError] = []
    with OutputFolder(out) as folder:
        for request in requests:
            try:
                with open_slide(request.path) as slide:
                    plan = plan_slide(slide, bundle.card, request.settings, reader=request.reader)
                picture = grid_picture.render(plan)
            except MminferError as error:
                failures.append(error)
                name = "a slide" if hide_names else request.case.id
                message = request.message(error, hide_names=hide_names)
                say_error(f"{name}: failed (exit {error.exit_code}): {message}")
                continue
            digest = plan.identity.digest
            name = digest[:DIGEST_CHARS] if hide_names else request.case.id
            place = folder.folder_of(request.path, replace(request.case, id=name), digest)
            place.mkdir(exist_ok=True)
            write_atomically(place / "grid.png", picture)
            say(
                f"{name}: {plural(len(plan.tiles), 'tile')} of {plan.geometry.tile_um:g} µm, "
                f"{plan.tissue_mm2:.2f} mm² of tissue, read from level {plan.reading.level}\n  {place / 'grid.png'}"
            )
    return failures
