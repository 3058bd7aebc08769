"""report.html: all of a result on one page that asks for nothing: no other file, no network, one tiny script.

Whatever comes from a slide, a file name or a model card is plain text here: `_shown` takes control and bidirectional
characters out of every value and cuts it, Jinja escapes it, and the page's policy runs no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from melanoma_infer.card import UNKNOWN, ModelCard
from melanoma_infer.records import GalleryTile, SlideView
from melanoma_infer.reports import drawing, words
from melanoma_infer.result import PatientOut, SlideResult
from melanoma_infer.scoring.gallery import ROLES

TEMPLATE = Path(__file__).with_name("report.html.j2")
TEXT_CHARS = 400
"""Longer texts from outside are cut."""
STAGE_PX = 2000
"""Longest side of the slide in the page: enough to zoom, and a JPEG of well under a megabyte for most slides."""
HATCHING_PX = 800
STAGE_BYTES = 1_800_000
QUALITIES = (85, 75, 60, 40)
RAW_PX, MAP_PX = 384, 208
REGIONS_LISTED, REGIONS_DRAWN = 40, 400
MAPS = ("lesion", "malignant", "outcome")
MEASURED = "Breslow_mm"
PATIENT_OPTIONS = {name: f"--{name}" for name in ("age", "sex", "site", "ulceration")} | {MEASURED: "--breslow-mm"}
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that show nothing but can turn or break what stands around them."""


@dataclass(frozen=True)
class Outline:
    """A region on the stage: an SVG path, and where its name stands."""

    id: str
    kind: str
    path: str
    x: float
    y: float


@dataclass(frozen=True)
class Stage:
    """The slide as it is shown: layers as data URIs, outlines in the pixels of the layers."""

    width: int
    height: int
    slide: Markup
    heat: Markup
    hatching: Markup | None
    kinds: tuple[str, ...]
    outlines: tuple[Outline, ...]
    bar_mm: float
    bar_share: float
    cell_mm: str
    source: str


@dataclass(frozen=True)
class Shot:
    """One picture of a tile."""

    name: str
    picture: Markup


@dataclass(frozen=True)
class TileRow:
    """A tile of the gallery: the tile as read, then what the model made of it."""

    title: str
    score: str
    x: int
    y: int
    shots: tuple[Shot, ...]


def render(result: SlideResult) -> bytes:
    """The page; the same result gives the same bytes."""
    view, card = result.view, result.card
    page = _template().render(
        result=result,
        card=card,
        words=words,
        reasons=result.reasons if words.opening(result) else [],
        nothing=words.means_nothing(result),
        stage=stage_of(result, view) if view is not None else None,
        tiles=[_tile_row(result, tile) for tile in result.gallery],
        has_maps=result.tiles.attention is not None or _cam_scale(result) is not None,
        regions=result.regions[:REGIONS_LISTED],
        more_regions=max(0, len(result.regions) - REGIONS_LISTED),
        patient=_patient_values(result.patient),
        facts=list(_provenance(result)),
        command=repeat_command(result, card),
        seconds=[(name, f"{ms / 1000:.2f} s") for name, ms in result.timings_ms.items()],
        heat_ramp=_gradient(),
    )  # fmt: skip
    return page.encode("utf-8")


def plain(text: str, chars: int = TEXT_CHARS) -> str:
    """The text without characters that show nothing, cut to a length; tabs and line ends become spaces."""
    spaced = text[: 4 * chars].translate({9: " ", 10: " ", 13: " "})
    kept = "".join(c for c in spaced if unicodedata.category(c) not in HIDDEN_CATEGORIES)
    return kept if len(kept) <= chars and len(text) <= 4 * chars else kept[: chars - 1] + "…"


def repeat_command(result: SlideResult, card: ModelCard | None) -> str:
    """The command that gives this result again; SLIDE, MASK and patient values stand for what is not told here."""
    again = result.patient is not None and result.patient.breslow_mm is not None
    options = _patient_options(result.patient) if again else _options(result, card)
    begin = ["mminfer", "rescore", "FOLDER"] if again else ["mminfer", "score", "SLIDE"]
    return " ".join([*begin, "--bundle", *(shlex.quote(part) for part in (plain(result.bundle.name), *options))])


def _options(result: SlideResult, card: ModelCard | None) -> Iterator[str]:
    """The options that differ from the defaults."""
    geometry, scale, numerics = result.geometry, result.scale, result.numerics
    if numerics.engine != "openvino":
        yield from ("--engine", plain(numerics.engine))
    if card is None or numerics.precision != card.precision:
        yield from ("--precision", numerics.precision)
    if scale.source == "override":
        yield from ("--mpp", f"{scale.x_um_per_px:g},{scale.y_um_per_px:g}")
    if card is None or geometry.tile_um != card.tile_side_um:
        yield from ("--tile-um", f"{geometry.tile_um:g}")
    if geometry.stride_um != geometry.tile_um:
        yield from ("--stride-um", f"{geometry.stride_um:g}")
    if geometry.tissue_source != "found":
        yield from ("--tissue", "all" if geometry.tissue_source == "all" else "MASK")
    if card is None or geometry.aggregator != card.aggregator.kind:
        yield from ("--aggregate", plain(geometry.aggregator))
    for option, said in (("--stain", result.stain), ("--specimen", result.specimen)):
        if said is not None:
            yield from (option, plain(said))
    yield from _patient_options(result.patient)


def _patient_options(patient: PatientOut | None) -> Iterator[str]:
    """Options for the values that are known; their own names stand in place of the values."""
    for name, _ in _patient_values(patient):
        short = plain(name, 40)
        known = PATIENT_OPTIONS.get(short)
        yield from (known, short.upper()) if known else ("--patient", f"{short}=VALUE")


def stage_of(result: SlideResult, view: SlideView) -> Stage:
    """The layers of the slide's picture."""
    frame = drawing.frame_of(result, view, STAGE_PX)
    kinds = drawing.hatched(result, view, frame)
    bar_mm, bar_px = drawing.scale_bar(frame, result.scale.x_um_per_px, share=0.2)
    rows, columns = frame.shape
    return Stage(
        width=columns,
        height=rows,
        slide=_jpeg_within(drawing.slide_layer(view, frame), STAGE_BYTES),
        heat=_png(drawing.heat_layer(view, frame)),
        hatching=_hatching(result, view),
        kinds=tuple(kinds),
        outlines=tuple(_outlines(result, frame)),
        bar_mm=bar_mm,
        bar_share=bar_px / columns,
        cell_mm=words.mm(view.evidence.cell_l0[0] * result.scale.x_um_per_px / 1000),
        source=view.evidence.source,
    )


def _hatching(result: SlideResult, view: SlideView) -> Markup | None:
    """The hatching at about the size of a screen, where its lines are to be told apart."""
    frame = drawing.frame_of(result, view, HATCHING_PX)
    kinds = drawing.hatched(result, view, frame)
    return _png(drawing.hatch_layer(kinds, frame)) if kinds else None


def _outlines(result: SlideResult, frame: drawing.Frame) -> Iterator[Outline]:
    """The largest regions as SVG paths, in picture pixels to a tenth."""
    for region in result.regions[:REGIONS_DRAWN]:
        rings = [frame.points(ring) for ring in (region.outline, *region.holes)]
        path = " ".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring[:-1]) + "Z" for ring in rings)
        x, y = min(rings[0], key=lambda point: (point[1], point[0]))
        yield Outline(region.id, region.class_, path, round(x, 1), round(y, 1))


def _tile_row(result: SlideResult, tile: GalleryTile) -> TileRow:
    """One tile of the gallery."""
    tiles, card, row = result.tiles, result.card, tile.row
    columns = list(card.malignant_columns) if card else []
    return TileRow(
        title=ROLES[tile.role],
        score=words.score(float(tiles.probabilities[row, columns].sum())),
        x=int(tiles.minx[row]),
        y=int(tiles.miny[row]),
        shots=(Shot("as scanned", _raw(tile.pixels, result)), *_maps(result, tile)),
    )


def _maps(result: SlideResult, tile: GalleryTile) -> Iterator[Shot]:
    """Attention, then the class maps on the card's scale; what the model does not give is not shown."""
    tiles, scale, grey = result.tiles, _cam_scale(result), _pale_grey(tile.pixels)
    if tiles.attention is not None:
        yield Shot("attention", _mapped(grey, tiles.attention[tile.row]))
    if tiles.cam is not None and scale is not None:
        known = MAPS if result.outcome_name is not None else MAPS[:2]
        for name, cam in zip(known, tiles.cam[tile.row], strict=False):
            yield Shot(name, _mapped(grey, np.clip(cam / scale, 0, 1)))


def _cam_scale(result: SlideResult) -> float | None:
    """What the class maps are divided by, which makes them comparable; without it they are not drawn."""
    return result.card.cam_scale if result.card is not None and result.tiles.cam is not None else None


def _raw(pixels: NDArray[np.uint8], result: SlideResult) -> Markup:
    """A tile as the model saw it, with a scale bar; small tiles are enlarged in whole pixels."""
    picture = _resized(Image.fromarray(pixels), RAW_PX)
    mm_per_px = result.geometry.tile_um / 1000 / picture.width
    mm = drawing.round_mm(0.32 * picture.width * mm_per_px)
    length, (x, y) = round(mm / mm_per_px), (14, picture.height - 22)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x - 2, y - 2, x + length + 1, y + 9), fill=drawing.WHITE)
    draw.rectangle((x, y, x + length - 1, y + 7), fill=drawing.INK)
    said = f"{mm:g} mm"
    draw.text((x, y - 8), said, drawing.INK, drawing.font(22), anchor="ls", stroke_width=3, stroke_fill=drawing.WHITE)
    return _jpeg(picture, 82)


def _pale_grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A tile in grey, so pale that colours are told apart on it: (MAP_PX, MAP_PX, 1)."""
    picture = Image.fromarray(pixels).convert("L").resize((MAP_PX, MAP_PX), Image.Resampling.BOX)
    return 120 + 0.53 * np.asarray(picture, np.float64)[..., None]


def _mapped(grey: NDArray[np.float64], values: NDArray[Any]) -> Markup:
    """A map 0–1 in its own cells over a tile in grey. Coloured by cell, then enlarged: there are far fewer cells."""
    y, x = (np.arange(MAP_PX) * cells // MAP_PX for cells in values.shape)
    part = drawing.opacity(values)[..., None]
    colour, left = (drawing.colours(values) * part)[np.ix_(y, x)], (1 - part)[np.ix_(y, x)]
    return _jpeg(Image.fromarray(np.round(colour + grey * left).astype(np.uint8)), 80)


def _resized(picture: Image.Image, side: int) -> Image.Image:
    """The picture with about this side: averaged down, or enlarged by a whole factor."""
    if picture.width > side:
        return picture.resize((side, side), Image.Resampling.BOX)
    whole = max(1, side // picture.width) * picture.width
    return picture.resize((whole, whole), Image.Resampling.NEAREST)


def _patient_values(patient: PatientOut | None) -> list[tuple[str, str]]:
    """The patient values that are known, ulceration last."""
    if patient is None:
        return []
    values = {**patient.values, "ulceration": patient.ulceration}
    if patient.breslow_mm is not None:
        values[MEASURED] = f"{words.mm(patient.breslow_mm)} (measured)"
    return [(name, value) for name, value in values.items() if value != UNKNOWN]


def _provenance(result: SlideResult) -> Iterator[tuple[str, str]]:
    """What the result comes from, name and value."""
    slide, geometry, numerics, bundle = result.slide, result.geometry, result.numerics, result.bundle
    levels = f"{slide.levels} level{'' if slide.levels == 1 else 's'}"
    yield "Tool", f"{result.tool.name} {result.tool.version}"
    yield "Model bundle", f"{bundle.name} {bundle.version}".rstrip()
    yield "Bundle digest", bundle.digest
    yield "Engine", f"{numerics.engine} {numerics.version}, {numerics.precision}, {numerics.device}"
    yield "Slide", f"{slide.width_px} × {slide.height_px} px, {levels}, {slide.vendor}, {slide.reader}"
    yield "Slide digest", slide.digest
    side, stride = words.mm(geometry.tile_um / 1000), words.mm(geometry.stride_um / 1000)
    yield "Tiles", f"{side} mm wide, {stride} mm apart, {geometry.tile_px} px, read from level {geometry.level}"
    yield "Tiles as the card says", "yes" if geometry.matches_card else "no"
    yield (
        "Tissue",
        {"found": "found by colour", "mask": "a mask that was given", "all": "everything"}[geometry.tissue_source],
    )
    yield "Slide score", f"{geometry.aggregator} over tiles"
    yield "Settings digest", result.settings_digest or "none"


def _gradient() -> Markup:
    """The ramp as a CSS gradient, as it looks on tissue."""
    stops = np.linspace(0, 1, 17)
    part = drawing.opacity(stops)[:, None]
    shades = np.round(drawing.colours(stops) * part + np.array(drawing.TISSUE_TINT) * (1 - part)).astype(int)
    return Markup("linear-gradient(90deg,{})").format(Markup(",").join(f"rgb({r} {g} {b})" for r, g, b in shades))


def _jpeg_within(picture: Image.Image, most: int) -> Markup:
    """A JPEG of the best quality that stays under a size."""
    for quality in QUALITIES[:-1]:
        uri = _jpeg(picture, quality)
        if len(uri) <= most:
            return uri
    return _jpeg(picture, QUALITIES[-1])


def _jpeg(picture: Image.Image, quality: int) -> Markup:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality, optimize=True)
    return _data_uri("image/jpeg", content.getvalue())


def _png(picture: Image.Image) -> Markup:
    return _data_uri("image/png", drawing.png(picture))


def _data_uri(kind: str, content: bytes) -> Markup:
    return Markup("data:{};base64,{}").format(kind, base64.b64encode(content).decode("ascii"))


@cache
def _template() -> Template:
    """The page's template; whatever it shows passes `_shown`, then Jinja's escaping."""
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
    """Every value of the page passes here: our own markup as it is, all else as plain text."""
    return value if isinstance(value, Markup) else plain("–" if value is None else str(value))


def _number(value: float | str | None) -> str:
    """A reason's value or limit in two decimals where it is a fraction."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else "–" if value is None else str(value)


def _csp_hash(script: str) -> Markup:
    """The source expression that lets this script run, and no other."""
    digest = hashlib.sha256(str(script).encode("utf-8")).digest()
    return Markup("'sha256-{}'").format(base64.b64encode(digest).decode("ascii"))
