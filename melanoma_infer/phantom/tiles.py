"""Training tiles: a patient's scene, drawn directly at a model's scale, and what is true of the part that is seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.cohort import Person, person
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.labels import Label, draw_labels
from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.options import CASES, Case, Kind, Options
from melanoma_infer.phantom.scene import Scene, make_scene
from melanoma_infer.phantom.truth import SectionTruth, section_truth

Rgb = NDArray[np.uint8]

_CASE, _PLACE = 2100, 2200
SIDES_UM = ((2.5, 12_000.0), (4.5, 24_000.0), (8.0, 36_000.0))
"""Sides of the slides that tiles are drawn from, with the thickest melanoma that has room on each."""
KINDS: dict[Kind, float] = {"melanoma": 0.5, "nevus": 0.3, "none": 0.2}
COMMON: dict[Case, float] = {
    "thick-horn": 0.12, "papillomatous": 0.12, "polypoid": 0.08, "curved": 0.2, "unpigmented": 0.15, "dark": 0.3,
    "large": 0.45, "infiltrate": 0.5, "melanophages": 0.4, "on-nevus": 0.5, "ink": 0.15, "fold": 0.1, "blur": 0.1,
}  # fmt: skip
"""How often each hard case occurs, in nevi and melanomas alike; ulceration follows thickness."""
RARER_WITH_DEPTH: tuple[Case, ...] = ("infiltrate", "on-nevus", "large")
"""Thin melanomas arise on nevi and are infiltrated more often, so the amount of dark tissue tells no depth."""
RARER = (0.85, 0.17, 0.2)
"""How often at 0 mm, how much less per mm, and at least."""
ULCER_WITHOUT_MELANOMA = 0.12
LOOK_UM = 24.0
"""Scale of the labels that say what a tile shows."""
SHOWN_MM2, UNSEEN_MM2 = 0.02, 0.0
MARGIN_UM = 30.0
"""Surface and deepest cell are in a tile if they are this far from its edges."""
TRIES = 12


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A patient with a scene, of one section."""

    seed: int
    person: Person
    scene: Scene
    truth: SectionTruth


@dataclass(frozen=True)
class PlacedTile:
    """A tile of a case: its pixels at `um_per_px`, and what it shows."""

    rect: RectPx
    um_per_px: float
    shows: Kind
    breslow_mm: float | None
    surface_in_tile: bool | None


def phantom_case(seed: int, styles: tuple[str, ...]) -> PhantomCase:
    """The case of this seed, in one of these styles."""
    somebody, kind, options = patient_of(seed, styles)
    side = next(side for most, side in SIDES_UM if (options.depth_mm or 0) <= most)
    scene = make_scene(seed, kind, (side, side), options)
    return PhantomCase(seed, somebody, scene, section_truth(scene.sections[0], 1.0))


def patient_of(seed: int, styles: tuple[str, ...]) -> tuple[Person, Kind, Options]:
    """The patient of this seed, the kind of lesion, and how it is drawn."""
    which, style, turn, ulcer, *own = draws(4 + len(CASES), stream(seed, _CASE))
    somebody, kind = person(seed), _kind(which)
    shares = dict(COMMON)
    if kind == "melanoma":
        shares |= dict.fromkeys(RARER_WITH_DEPTH, max(RARER[0] - RARER[1] * somebody.breslow_mm, RARER[2]))
    cases = {case for case, u in zip(CASES, own, strict=True) if u < shares.get(case, 0)}
    ulcerated = somebody.ulcerated if kind == "melanoma" else ulcer < ULCER_WITHOUT_MELANOMA
    if ulcerated:
        cases.add("ulcerated")
    if somebody.site == "acral":
        cases.add("thick-horn")
    options = Options(
        style=styles[int(style * len(styles))],
        cases=frozenset(cases),
        depth_mm=somebody.breslow_mm if kind == "melanoma" else None,
        angle_deg=360 * turn - 180,
    )
    return replace(somebody, ulcerated=ulcerated), kind, options


def place_tile(case: PhantomCase, number: int, tile_px: int, um_per_px: float) -> PlacedTile:
    """Tile `number` of a case: the first shows its lesion, others its edge, other skin, or mostly background."""
    side = tile_px * um_per_px
    for attempt in range(TRIES):
        way, *spread = draws(5, stream(case.seed, _PLACE + TRIES * number + attempt))
        x, y = _corner(case, side, way if number else 0.3 * way, spread)
        rect = RectPx(round(x / um_per_px), round(y / um_per_px), tile_px, tile_px)
        shown = _shown_mm2(case.scene, rect, um_per_px)
        if shown >= SHOWN_MM2 or shown <= UNSEEN_MM2:
            break
    kind: Kind = case.scene.kind if shown >= SHOWN_MM2 else "none"
    if kind != "melanoma":
        return PlacedTile(rect, um_per_px, kind, None, None)
    return PlacedTile(rect, um_per_px, kind, case.truth.breslow_mm, _depth_in_tile(case.truth, rect, um_per_px))


def draw_tile(case: PhantomCase, tile: PlacedTile) -> Rgb:
    """The tile's pixels (tile_px, tile_px, 3)."""
    return draw(case.scene, tile.rect, tile.um_per_px)


def _kind(u: float) -> Kind:
    for kind, share in KINDS.items():
        if u < share:
            return kind
        u -= share
    return "none"


def _corner(case: PhantomCase, side: float, way: float, spread: list[float]) -> tuple[float, float]:
    """The upper left corner of a tile in µm: with the whole depth (way < 0.6), cut off, background, or other skin."""
    section = case.scene.sections[0]
    layers = section.layers
    truth = case.truth
    if way < 0.6 and truth.surface_um is not None and truth.deepest_um is not None:
        # The surface is in the tile's outer part whatever the depth, so that the share of background tells no depth.
        (x, y), (deep_x, deep_y) = truth.surface_um, truth.deepest_um
        depth = 1000 * (truth.breslow_mm or 0)
        down, aside = side * (0.22 + 0.22 * spread[0]), side * 0.44 * (spread[1] - 0.5)
        if depth - down < 0.45 * side:
            x += ((deep_x - x) * down - (deep_y - y) * aside) / depth
            y += ((deep_y - y) * down + (deep_x - x) * aside) / depth
            return x - side / 2, y - side / 2
    reach = 0.5 * side if way < 0.6 else side * (0.9 if way < 0.8 else 1.6)
    s = section.skin.site_um + reach * (2 * spread[0] - 1)
    s = min(max(s, 100.0), section.frame.length_um - 100.0)
    surface = float(layers.reference[int(s)])
    down = side * (0.8 * spread[1] - 0.3 if way < 0.8 else 0.35 - 0.75 * spread[1])
    x, y = (float(at[0]) for at in section.frame.slide(np.array([s]), np.array([surface + down])))
    return x - side * (0.3 + 0.4 * spread[2]), y - side * (0.3 + 0.4 * spread[3])


def _shown_mm2(scene: Scene, rect: RectPx, um_per_px: float) -> float:
    """How much of the lesion a tile shows."""
    step = LOOK_UM / um_per_px
    look = RectPx(round(rect.x / step), round(rect.y / step), int(rect.width / step), int(rect.height / step))
    labels = draw_labels(scene, look, LOOK_UM)
    wanted = labels >= Label.MELANOMA_IN_SITU if scene.kind == "melanoma" else labels == Label.NEVUS
    return float((wanted & (labels != Label.INK)).sum()) * LOOK_UM * LOOK_UM / 1e6


def _depth_in_tile(truth: SectionTruth, rect: RectPx, um_per_px: float) -> bool:
    """Whether the surface above the deepest cell and the deepest cell are both in a tile."""
    if truth.surface_um is None or truth.deepest_um is None:
        return False
    margin = MARGIN_UM / um_per_px
    return all(
        rect.x + margin <= x / um_per_px <= rect.right - margin
        and rect.y + margin <= y / um_per_px <= rect.bottom - margin
        for x, y in (truth.surface_um, truth.deepest_um)
    )
