"""The truth about a scene, computed from its geometry and not from its pixels.

Breslow thickness is measured along the normal of the section's general surface, from the top of the granular layer (or
the ulcer's base) straight above the deepest invasive cell. `audit` measures all of it again, from labels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import SizePx
from melanoma_infer.phantom.lesion import Lesion, invasive_end
from melanoma_infer.phantom.mark import CAUTION, GENERATOR
from melanoma_infer.phantom.nests import lower_ends
from melanoma_infer.phantom.options import Kind
from melanoma_infer.phantom.scene import Scene, Section
from melanoma_infer.phantom.skin import Curve, Layers

OUTLINE_STEP = 4
"""µm of s between the points of an outline."""
GAP_UM = 200
"""A lesion's outline passes over gaps between its cells up to this wide."""
CLARK_MARGIN_UM = 30.0
"""Cells that end this close to the reticular dermis fill the papillary dermis: level III."""

Point = tuple[float, float]
Outline = tuple[Point, ...]


@dataclass(frozen=True)
class SectionTruth:
    """The truth about one section; lengths in µm of the slide unless the name says mm."""

    centre_um: Point
    """The middle of the section's general surface."""
    normal_from_um: Point
    """The centre of the arc that is its general surface: depth is measured along lines through it."""
    bulge: int
    """1: the skin's surface faces away from that centre; −1: towards it."""
    tissue_mm2: float
    """Area between the upper border of the horn and the lower edge of the section."""
    lesion_mm2: float
    """Area inside the outlines: from the surface of the living skin to the lower end of the lesion's cells."""
    ulcer_mm: float
    """Length of skin without epidermis."""
    breslow_mm: float | None
    clark: int | None
    surface_um: Point | None
    """Where the thickness is measured from."""
    deepest_um: Point | None
    """The lowest point of the deepest invasive cell."""
    outlines_um: tuple[Outline, ...]
    outlines_l0: tuple[Outline, ...]


@dataclass(frozen=True)
class Truth:
    """The truth about a phantom slide, as in the JSON file beside it; thickness and level are the worst section's."""

    generator: str
    seed: int
    style: str
    cases: tuple[str, ...]
    size_um: tuple[float, float]
    size_l0: tuple[int, int]
    um_per_px: float
    lesion: Kind
    tissue_mm2: float
    area_mm2: float
    """Area of the lesion in all sections."""
    breslow_mm: float | None
    clark: int | None
    ulcerated: bool
    worst_section: int
    sections: tuple[SectionTruth, ...]
    caution: str = CAUTION


def truth_of(scene: Scene, um_per_px: float) -> Truth:
    """The truth about a scene that is drawn at this scale."""
    size = size_l0(scene, um_per_px)
    sections = tuple(section_truth(section, um_per_px) for section in scene.sections)
    depths = [section.breslow_mm or 0.0 for section in sections]
    return Truth(
        generator=GENERATOR,
        seed=scene.seed,
        style=scene.options.style,
        cases=tuple(sorted(scene.options.cases)),
        size_um=scene.size_um,
        size_l0=(size.width, size.height),
        um_per_px=um_per_px,
        lesion=scene.kind,
        tissue_mm2=fsum(section.tissue_mm2 for section in sections),
        area_mm2=fsum(section.lesion_mm2 for section in sections),
        breslow_mm=max(depths) or None,
        clark=max(section.clark or 0 for section in sections) or None,
        ulcerated=any(section.ulcer_mm > 0 for section in sections),
        worst_section=depths.index(max(depths)),
        sections=sections,
    )


def section_truth(section: Section, um_per_px: float) -> SectionTruth:
    """The truth about one section."""
    layers, frame = section.layers, section.frame
    lesion = section.melanoma or section.nevus
    ends = np.full(len(layers.s_um), -np.inf) if lesion is None else _closed(lesion_end(lesion, layers))
    there = ends > layers.reference
    outlines = _outlines(section, ends)
    depth, clark, surface, deepest = _depth(section)
    return SectionTruth(
        centre_um=_point(frame.x_um, frame.y_um),
        normal_from_um=_point(*frame.centre_um),
        bulge=frame.bulge,
        tissue_mm2=_area_mm2(section, layers.top, layers.bottom),
        lesion_mm2=_area_mm2(section, layers.reference, np.where(there, ends, layers.reference)),
        ulcer_mm=fsum(frame.stretch(layers.s_um[layers.ulcer & (layers.bottom > layers.reference)])) / 1000,
        breslow_mm=depth,
        clark=clark,
        surface_um=surface,
        deepest_um=deepest,
        outlines_um=outlines,
        outlines_l0=tuple(tuple(_point(x / um_per_px, y / um_per_px) for x, y in outline) for outline in outlines),
    )


def size_l0(scene: Scene, um_per_px: float) -> SizePx:
    """The slide's size in level-0 pixels."""
    return SizePx(*(round(um / um_per_px) for um in scene.size_um))


def render(truth: Truth) -> str:
    """The truth as JSON, one value per line."""
    lines = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in asdict(truth).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def lesion_end(lesion: Lesion, layers: Layers) -> Curve:
    """The lower end of all cells of a lesion at each µm of s, −∞ where it has none."""
    ends = invasive_end(lesion, layers)
    for lattice in lesion.epidermal:
        above = lower_ends(lattice.ovals(), len(ends))
        ends = np.maximum(ends, np.minimum(above, layers.junction))
    return ends


def _depth(section: Section) -> tuple[float | None, int | None, Point | None, Point | None]:
    """Breslow thickness in mm, Clark level, and the two points that the thickness is measured between."""
    if section.melanoma is None:
        return None, None, None, None
    layers, frame = section.layers, section.frame
    ends = invasive_end(section.melanoma, layers)
    if not (ends > layers.reference).any():
        return None, 1, None, None
    at = int((ends - layers.reference).argmax())
    s = layers.s_um[at : at + 1]
    surface = tuple(float(axis[0]) for axis in frame.slide(s, layers.reference[at : at + 1]))
    deepest = tuple(float(axis[0]) for axis in frame.slide(s, ends[at : at + 1]))
    if (ends > layers.fat).any():
        clark = 5
    elif (ends > layers.papillary_end + CLARK_MARGIN_UM).any():
        clark = 4
    else:
        clark = 3 if (ends > layers.papillary_end - CLARK_MARGIN_UM).any() else 2
    return round(float(ends[at] - layers.reference[at]) / 1000, 6), clark, _point(*surface), _point(*deepest)


def _area_mm2(section: Section, upper: Curve, lower: Curve) -> float:
    """Area between two curves: strips of 1 µm of s narrow towards the arc's centre."""
    frame = section.frame
    bend = frame.bulge / frame.radius_um
    heights = (lower - upper) - bend * (lower * lower - upper * upper) / 2
    return fsum(heights * frame.stretch(section.layers.s_um)) / 1e6


def _closed(ends: Curve) -> Curve:
    """The curve after a closing: gaps up to GAP_UM wide take the lower of the ends beside them."""
    half = GAP_UM // 2
    # Beyond the strip there is nothing: without this margin a lesion near its end would be closed with the end.
    beyond = np.full(GAP_UM, -np.inf)
    closed: Curve = -_greatest(-_greatest(np.concatenate([beyond, ends, beyond]), half), half)
    return closed[GAP_UM:-GAP_UM]


def _greatest(curve: Curve, reach: int) -> Curve:
    """The greatest value of a curve within `reach` µm on either side."""
    edge = np.full(reach, -np.inf)
    greatest: Curve = np.lib.stride_tricks.sliding_window_view(np.concatenate([edge, curve, edge]), 2 * reach + 1).max(
        1
    )
    return greatest


def lesion_outlines(section: Section) -> tuple[Outline, ...]:
    """Closed lines around all its lesions in µm of the slide: a melanoma, a nevus, or a melanoma beside a nevus."""
    lesions = (lesion for lesion in (section.melanoma, section.nevus) if lesion is not None)
    return tuple(
        outline for lesion in lesions for outline in _outlines(section, _closed(lesion_end(lesion, section.layers)))
    )


def _outlines(section: Section, ends: Curve) -> tuple[Outline, ...]:
    return tuple(_outline(section, ends, run) for run in _runs(ends > section.layers.reference))


def _runs(there: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and one past the last place of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _outline(section: Section, ends: Curve, run: tuple[int, int]) -> Outline:
    """A closed line on the slide: along the surface, and back along the lower end."""
    at = np.unique(np.append(np.arange(*run, OUTLINE_STEP), run[1] - 1))
    s = section.layers.s_um[at]
    forth = section.frame.slide(s, section.layers.reference[at])
    back = section.frame.slide(s[::-1], ends[at][::-1])
    x, y = (np.concatenate(axis) for axis in zip(forth, back, strict=True))
    return tuple(_point(*place) for place in zip(x, y, strict=True))


def _point(x: float, y: float) -> Point:
    return round(float(x), 2), round(float(y), 2)
