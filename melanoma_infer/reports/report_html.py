"""report.html: a whole result on one page that loads nothing: no other file, no network, one tiny script.

Everything that comes from a slide, a file name or a model card is shown as plain text: `_shown` removes control and
bidirectional characters from every value and truncates it, Jinja escapes it, and the page's policy allows no script but
its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from melanoma_infer.reports import words
from melanoma_infer.reports.drawing import colours_on_tissue
from melanoma_infer.reports.plain_text import plain
from melanoma_infer.reports.repeat_command import known_patient_values, repeat_command
from melanoma_infer.reports.report_pictures import cam_scale, stage_of, tile_row
from melanoma_infer.result import SlideResult

TEMPLATE = Path(__file__).with_name("report.html.j2")
REGIONS_LISTED = 40


def render(result: SlideResult) -> bytes:
    """The page as UTF-8; the same result gives the same bytes."""
    view, card = result.view, result.card
    # The ramp as a CSS gradient, with the colours it has on tissue.
    ramp = np.round(colours_on_tissue(np.linspace(0, 1, 17))).astype(int)
    shades = ",".join(f"rgb({r} {g} {b})" for r, g, b in ramp)
    page = _template().render(
        result=result,
        card=card,
        words=words,
        reasons=result.reasons if words.opening(result) else [],
        nothing=words.means_nothing(result),
        stage=stage_of(result, view) if view is not None else None,
        tiles=[tile_row(result, tile) for tile in result.gallery],
        has_maps=result.tiles.attention is not None or cam_scale(result) is not None,
        regions=result.regions[:REGIONS_LISTED],
        more_regions=max(0, len(result.regions) - REGIONS_LISTED),
        patient=known_patient_values(result.patient),
        facts=list(_provenance(result)),
        command=repeat_command(result, card),
        seconds=[(name, f"{ms / 1000:.2f} s") for name, ms in result.run.timings_ms.items()],
        heat_ramp=Markup(f"linear-gradient(90deg,{shades})"),
    )  # fmt: skip
    return page.encode("utf-8")


def _provenance(result: SlideResult) -> Iterator[tuple[str, str]]:
    """What the result rests on, as (name, value)."""
    slide, geometry, numerics, bundle = result.slide, result.geometry, result.numerics, result.bundle
    levels = words.plural(slide.levels, "level")
    tissue = {"found": "found by colour", "mask": "a mask file", "all": "not searched; all tiles count as tissue"}
    yield "Tool", f"{result.tool.name} {result.tool.version}"
    yield "Model bundle", f"{bundle.name} {bundle.version}".rstrip()
    yield "Bundle digest", bundle.digest
    yield "Engine", f"{numerics.engine} {numerics.version}, {numerics.precision}, {numerics.device}"
    yield "Slide", f"{slide.width_px} × {slide.height_px} px, {levels}, {slide.vendor}, {slide.reader}"
    yield "Slide digest", slide.digest
    side, stride = words.mm(geometry.tile_um / 1000), words.mm(geometry.stride_um / 1000)
    yield "Tiles", f"{side} mm wide, {stride} mm apart, {geometry.tile_px} px, read from level {geometry.level}"
    yield "Tiles match the card", "yes" if geometry.matches_card else "no"
    yield "Tissue", tissue[geometry.tissue_source]
    yield "Slide score", f"{geometry.aggregator} of the tiles"
    yield "Result folder", result.run.folder or "not written"


@cache
def _template() -> Template:
    """The page's template; every value goes through `_shown`, then through Jinja's escaping."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"csp_hash": _csp_hash, "own_markup": Markup, "number": _number}
    return environment.get_template(TEMPLATE.name)


def _shown(value: Any) -> Any:
    """Our own markup unchanged, everything else as plain text."""
    return value if isinstance(value, Markup) else plain("–" if value is None else str(value))


def _number(value: float | str | None) -> str:
    """A reason's value or limit: fractions with at most two decimals, a dash for None."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else "–" if value is None else str(value)


def _csp_hash(script: str) -> Markup:
    """The CSP source expression that allows this script and no other."""
    digest = hashlib.sha256(str(script).encode("utf-8")).digest()
    return Markup("'sha256-{}'").format(base64.b64encode(digest).decode("ascii"))
