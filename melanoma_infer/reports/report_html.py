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
from melanoma_infer.reports.drawing import HEAT_OPACITY, TISSUE_TINT, colours, opacity
from melanoma_infer.reports.layers import listed
from melanoma_infer.reports.plain_text import plain
from melanoma_infer.reports.repeat_command import known_patient_values, repeat_command
from melanoma_infer.reports.report_pictures import cam_scale, stage_of, tile_row
from melanoma_infer.result import SlideResult
from melanoma_infer.scoring.gallery import padded_above

TEMPLATE = Path(__file__).with_name("report.html.j2")
REGIONS_FOLDED = 100
"""Rows of smaller regions, behind one line; the files hold all of them."""


def render(result: SlideResult) -> bytes:
    """The page as UTF-8; the same result gives the same bytes."""
    view, card, run = result.view, result.card, result.run
    regions = listed(result.regions)
    smaller = result.regions[len(regions) :]
    page = _template().render(
        result=result,
        card=card,
        words=words,
        reasons=result.reasons if words.opening(result) else [],
        nothing=words.means_nothing(result),
        stage=stage_of(result, view) if view is not None else None,
        tiles=[tile_row(result, tile) for tile in result.gallery],
        has_maps=result.tiles.attention is not None or cam_scale(result) is not None,
        regions=regions,
        smaller=smaller,
        smaller_mm2=sum(region.area_mm2 for region in smaller),
        rows_folded=REGIONS_FOLDED,
        padded_note=_padded_note(result),
        times=words.when(run.started, run.finished) if run.started and run.finished else None,
        patient=known_patient_values(result.patient),
        facts=list(_provenance(result)),
        command=repeat_command(result, card),
        seconds=[(name, f"{ms / 1000:.2f} s") for name, ms in run.timings_ms.items()],
        heat_percent=0 if words.means_nothing(result) else round(100 * HEAT_OPACITY),
        heat_ramp=_heat_ramp(),
        tissue_tint=Markup("rgb({} {} {})").format(*TISSUE_TINT),
    )  # fmt: skip
    return page.encode("utf-8")


def _heat_ramp() -> Markup:
    """The colours of evidence as a CSS gradient, as opaque as in the heat's layer."""
    values = np.linspace(0, 1, 17)
    shades = zip(colours(values).tolist(), opacity(values, strongest=1.0).tolist(), strict=True)
    return Markup("linear-gradient(90deg,{})").format(",".join(f"rgb({r} {g} {b}/{a:.2f})" for (r, g, b), a in shades))


def _padded_note(result: SlideResult) -> str:
    """What the reader of the gallery must know about tiles that were partly never scanned; empty if nothing."""
    rows = [tile.row for tile in result.gallery]
    if rows and (result.tiles.padded_fraction[rows] > 0).all():
        return "Every tile of this slide is padded: a part of it was never scanned."
    highest = [tile.row for tile in result.gallery if tile.role == "highest-scoring"]
    hidden = padded_above(result.tiles, result.card, highest) if result.card is not None else 0
    if not hidden:
        return ""
    tiles = "One padded tile scores" if hidden == 1 else f"{hidden} padded tiles score"
    return f"{tiles} higher than one of these, but a part was never scanned; see tiles.csv."


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
    side, stride = words.width(geometry.tile_um / 1000), words.width(geometry.stride_um / 1000)
    yield "Tiles", f"{side} wide, {stride} apart, {geometry.tile_px} px, read from level {geometry.level}"
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
