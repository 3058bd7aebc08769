"""The pictures of report.html, as data URIs: the layers of the slide, and the tiles with their maps."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from melanoma_infer.records import GalleryTile, SlideView
from melanoma_infer.reports import words
from melanoma_infer.reports.drawing import INK, MAP_OPACITY, WHITE, colours, font, opacity, png
from melanoma_infer.reports.frame import frame_of, round_mm, scale_bar
from melanoma_infer.reports.layers import hatch_layer, hatched, heat_layer, listed, slide_layer
from melanoma_infer.result import SlideResult
from melanoma_infer.scoring.gallery import ROLES

STAGE_PX = 2000
"""Longest side of the stage: enough to zoom in, and for most slides a JPEG of well under a megabyte.

A smaller thumbnail is kept as it is; the browser enlarges it."""
HATCHING_PX = 800
"""Longest side of the hatching: about the size of a screen, so that its lines stay distinct."""
STAGE_BYTES = 1_800_000
QUALITIES = (85, 75, 60, 40)
"""JPEG qualities for the slide, tried in turn until it fits STAGE_BYTES."""
RAW_PX, MAP_PX = 384, 208
REGIONS_DRAWN = 400
MAPS = ("lesion", "malignant", "outcome")


@dataclass(frozen=True)
class Outline:
    """A region on the stage: an SVG path, and the position of its label."""

    id: str
    kind: str
    path: str
    x: float
    y: float
    labelled: bool


@dataclass(frozen=True)
class Stage:
    """The slide as the page shows it: layers as data URIs, outlines in the pixels of the layers.

    The strongest heat is opaque in its layer; the page chooses how opaque the layer is.
    """

    width: int
    height: int
    slide: Markup
    heat: Markup
    hatching: Markup | None
    kinds: tuple[str, ...]
    outlines: tuple[Outline, ...]
    bar_mm: float
    bar_share: float
    cell_width: str
    source: str


@dataclass(frozen=True)
class Shot:
    """One picture of a tile."""

    name: str
    picture: Markup


@dataclass(frozen=True)
class TileRow:
    """A tile of the gallery: the tile as scanned, then the maps of the model."""

    title: str
    score: str
    padded: str
    x: int
    y: int
    shots: tuple[Shot, ...]


def stage_of(result: SlideResult, view: SlideView) -> Stage:
    """The layers of the slide's picture."""
    frame = frame_of(result, view, STAGE_PX)
    bar_mm, bar_px = scale_bar(frame, result.scale.x_um_per_px, share=0.2)
    rows, columns = frame.shape
    coarse = frame_of(result, view, HATCHING_PX)
    coarse_kinds = hatched(result, view, coarse)
    own = frame_of(result, view, min(STAGE_PX, max(view.tissue.shape)))
    picture, enlarged = slide_layer(view, own), own.width < frame.width
    slide = _jpeg(picture, QUALITIES[0], enlarged=enlarged)
    for quality in QUALITIES[1:]:
        if len(slide) > STAGE_BYTES:
            slide = _jpeg(picture, quality, enlarged=enlarged)
    outlines: list[Outline] = []
    names = {region.id for region in listed(result.regions)}
    for region in result.regions[:REGIONS_DRAWN]:
        rings = [frame.points(ring) for ring in (region.outline, *region.holes)]
        path = " ".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring[:-1]) + "Z" for ring in rings)
        x, y = min(rings[0], key=lambda point: (point[1], point[0]))
        outlines.append(Outline(region.id, region.class_, path, round(x, 1), round(y, 1), region.id in names))
    return Stage(
        width=columns,
        height=rows,
        slide=slide,
        heat=_data_uri("image/png", png(heat_layer(view, frame, strongest=1.0))),
        hatching=_data_uri("image/png", png(hatch_layer(coarse_kinds, coarse))) if coarse_kinds else None,
        kinds=tuple(hatched(result, view, frame)),
        outlines=tuple(outlines),
        bar_mm=bar_mm,
        bar_share=bar_px / columns,
        cell_width=words.width(view.evidence.cell_l0[0] * result.scale.x_um_per_px / 1000),
        source=view.evidence.source,
    )


def tile_row(result: SlideResult, tile: GalleryTile) -> TileRow:
    """One tile of the gallery with its pictures; maps that the model does not have are left out."""
    tiles, card, row = result.tiles, result.card, tile.row
    columns = list(card.malignant_columns) if card else []
    shots = [Shot("as scanned", scanned(tile.pixels, result.geometry.tile_um))]
    scale, grey = cam_scale(result), pale_grey(tile.pixels)
    if tiles.attention is not None:
        shots.append(Shot("attention", map_over(grey, tiles.attention[row])))
    if tiles.cam is not None and scale is not None:
        known = MAPS if result.outcome_name is not None else MAPS[:2]
        for name, cam in zip(known, tiles.cam[row], strict=False):
            shots.append(Shot(name, map_over(grey, np.clip(cam / scale, 0, 1))))
    return TileRow(
        title=ROLES[tile.role],
        score=words.score(float(tiles.probabilities[row, columns].sum())),
        padded=words.share(max(0.01, padded)) if (padded := float(tiles.padded_fraction[row])) else "",
        x=int(tiles.minx[row]),
        y=int(tiles.miny[row]),
        shots=tuple(shots),
    )


def cam_scale(result: SlideResult) -> float | None:
    """What class activation maps are divided by to make them comparable; without it they are not drawn."""
    return result.card.cam_scale if result.card is not None and result.tiles.cam is not None else None


def scanned(pixels: NDArray[np.uint8], tile_um: float) -> Markup:
    """A tile as the model saw it, with a scale bar; small tiles are enlarged by a whole factor."""
    picture = Image.fromarray(pixels)
    if picture.width > RAW_PX:
        picture = picture.resize((RAW_PX, RAW_PX), Image.Resampling.BOX)
    else:
        side = max(1, RAW_PX // picture.width) * picture.width
        picture = picture.resize((side, side), Image.Resampling.NEAREST)
    mm_per_px = tile_um / 1000 / picture.width
    mm = round_mm(0.32 * picture.width * mm_per_px)
    length, (x, y) = round(mm / mm_per_px), (14, picture.height - 22)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x - 2, y - 2, x + length + 1, y + 9), fill=WHITE)
    draw.rectangle((x, y, x + length - 1, y + 7), fill=INK)
    draw.text((x, y - 8), f"{mm:g} mm", INK, font(22), anchor="ls", stroke_width=3, stroke_fill=WHITE)
    return _jpeg(picture, 82)


def pale_grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A tile in grey, (MAP_PX, MAP_PX, 1), pale enough that colours on it can be told apart."""
    picture = Image.fromarray(pixels).convert("L").resize((MAP_PX, MAP_PX), Image.Resampling.BOX)
    return 120 + np.float32(0.53) * np.asarray(picture, np.float32)[..., None]


def map_over(grey: NDArray[np.float32], values: NDArray[Any]) -> Markup:
    """A map in 0–1 in its own cells over a grey tile. Cells are coloured before enlarging: they are far fewer."""
    y, x = (np.arange(MAP_PX) * cells // MAP_PX for cells in values.shape)
    part = opacity(values, MAP_OPACITY)[..., None].astype(np.float32)
    colour, left = (cells.take(y, axis=0).take(x, axis=1) for cells in (colours(values) * part, 1 - part))
    return _jpeg(Image.fromarray(np.round(colour + grey * left).astype(np.uint8)), 80)


def _jpeg(picture: Image.Image, quality: int, *, enlarged: bool = False) -> Markup:
    """A JPEG; one that the browser enlarges keeps the colour of every pixel, not that of four together."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality, optimize=True, subsampling="4:4:4" if enlarged else "4:2:0")
    return _data_uri("image/jpeg", content.getvalue())


def _data_uri(kind: str, content: bytes) -> Markup:
    return Markup("data:{};base64,{}").format(kind, base64.b64encode(content).decode("ascii"))
