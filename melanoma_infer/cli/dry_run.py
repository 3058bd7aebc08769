"""`mminfer score --dry-run`: draw the grid of each slide, score nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from melanoma_infer.cli.console import say, say_error, say_json
from melanoma_infer.errors import MminferError
from melanoma_infer.runtime.plural import plural

if TYPE_CHECKING:
    from melanoma_infer.bundle.bundle import Bundle
    from melanoma_infer.pipeline.request import SlideRequest
    from melanoma_infer.store.output import OutputFolder
    from melanoma_infer.tiles.plan import SlidePlan

GRID = "grid.png"


def draw_grids(
    requests: Sequence[SlideRequest], bundle: Bundle, out: Path, *, hide_names: bool, json: bool
) -> list[MminferError]:
    """Write grid.png for every slide and print what would be read; return the errors of the slides that failed."""
    from melanoma_infer.runtime.privacy import DIGEST_CHARS
    from melanoma_infer.store.output import OutputFolder
    from melanoma_infer.tiles.plan import plan_slide

    failures: list[MminferError] = []
    folder = OutputFolder(out)
    for request in requests:
        line: dict[str, Any] = {"id": "" if hide_names else request.case.id, "case_id": request.case.case_id}
        try:
            with request.open() as slide:
                plan = plan_slide(slide, bundle.card, request.settings, reader=request.reader)
            name = plan.identity.digest[:DIGEST_CHARS] if hide_names else request.case.id
            place = _write_grid(folder, request, bundle, plan, name)
        except MminferError as error:
            failures.append(error)
            message = request.message(error, hide_names=hide_names)
            say_error(f"{line['id'] or 'a slide'}: failed (exit {error.exit_code}): {message}")
            line |= {"exit_code": error.exit_code, "message": message, "folder": None, "report": None}
        else:
            line |= {"id": name, **_facts(plan, place)}
            if not json:
                say(
                    f"{name}: {plural(len(plan.tiles), 'tile')} of {plan.geometry.tile_um:g} µm, "
                    f"{plan.tissue_mm2:.2f} mm² of tissue, read from level {plan.reading.level}\n  {place / GRID}"
                )
        if json:
            say_json(line)
    return failures


def _write_grid(out: OutputFolder, request: SlideRequest, bundle: Bundle, plan: SlidePlan, name: str) -> Path:
    """The folder of the grid's picture. Nothing is computed, so it is not the folder of a result."""
    from melanoma_infer.pipeline.run_parts import run_parts
    from melanoma_infer.reports import grid_picture
    from melanoma_infer.runtime.output_files import output_error, write_output

    key = out.run_key(run_parts(request.case, request.settings, bundle, None, name=name))
    with out.claim(name, plan.identity.digest, key, request.path, Event()) as claimed:
        try:
            claimed.path.mkdir(exist_ok=True)
        except OSError as error:
            raise output_error(error) from error
        write_output(claimed.path / GRID, grid_picture.render(plan))
    return claimed.path


def _facts(plan: SlidePlan, place: Path) -> dict[str, Any]:
    return {
        "exit_code": 0,
        "message": "",
        "folder": str(place),
        "report": None,
        "grid": str(place / GRID),
        "tiles": len(plan.tiles),
        "tile_um": plan.geometry.tile_um,
        "tissue_mm2": plan.tissue_mm2,
        "level": plan.reading.level,
    }
