"""The files of a result: drawn in parallel, each written whole, and result.json last."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from melanoma_infer.reports import (
    heatmap,
    overlay,
    pictures_npz,
    regions_geojson,
    report_html,
    result_json,
    tiles_csv,
    tiles_geojson,
    tiles_npz,
)
from melanoma_infer.result import SlideResult
from melanoma_infer.runtime.output_files import output_error, write_output

RENDERERS = 2
"""Reports drawn in parallel: on 2 cores, two took two thirds of the time of one. Each keeps a picture in memory."""

REPORTS: dict[str, Callable[[SlideResult], bytes]] = {
    "report.html": report_html.render,
    "overlay.png": overlay.render,
    "heatmap.png": heatmap.render,
    "pictures.npz": pictures_npz.render,
    "tiles.csv": tiles_csv.render,
    "tiles.geojson": tiles_geojson.render,
    "regions.geojson": regions_geojson.render,
    "tiles.npz": tiles_npz.render,
    result_json.NAME: result_json.render,
}
"""In the order of writing: the slowest to draw first, and last result.json, the commit record."""


def write_reports(folder: Path, result: SlideResult) -> None:
    """Write all files of a result into a folder, which is created. It counts as finished once result.json exists.

    Raises:
        OutputError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error) from error
    with ThreadPoolExecutor(RENDERERS, "mminfer-render") as pool:
        contents = pool.map(lambda render: render(result), REPORTS.values())
        for name, content in zip(REPORTS, contents, strict=True):
            write_output(folder / name, content)
