"""What there is to draw: a section of skin in µm. x goes right, y goes down, (0, 0) is the slide's upper left corner.

The layers of the skin and the lesion are heights over x, so that every area, outline and depth is a sum over x. The
section with and without a lesion is the same section: what is placed by chance does not depend on the lesion.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from melanoma_infer.phantom.noise import Axis, draws, stream, value_noise

LesionKind = Literal["melanoma", "none"]

ROUNDING_UM = 220.0
"""Width over which the section's lower corners are rounded."""
DISCS = 7
"""Discs that make a lesion's lobed lower border."""

_SURFACE, _EPIDERMIS, _DERMIS, _LESION, _STRUCTURES = 100, 200, 300, 400, 500
"""Uses of chance (`noise.stream`); the numbers that follow each are its own."""


@dataclass(frozen=True)
class Skin:
    """Where the section lies, in µm: its ends, its highest point, its thickness, and how far its ends hang down."""

    left_um: float
    right_um: float
    top_um: float
    thickness_um: float
    arch_um: float


@dataclass(frozen=True)
class Disc:
    """One lobe of a lesion, in µm."""

    x_um: float
    y_um: float
    radius_um: float


@dataclass(frozen=True)
class Lesion:
    """All that lies between the skin's surface and the lower border of these discs."""

    discs: tuple[Disc, ...]

    def lower_um(self, x_um: Axis) -> Axis:
        """The lower border over x; −∞ beside the lesion."""
        lower = np.full_like(x_um, -np.inf)
        for disc in self.discs:
            beyond = disc.radius_um**2 - (x_um - disc.x_um) ** 2
            reach = np.where(beyond > 0, disc.y_um + np.sqrt(np.maximum(beyond, 0)), -np.inf)
            lower = np.maximum(lower, reach)
        return lower

    @property
    def ends_um(self) -> tuple[float, float]:
        """Its first and last x."""
        return (
            min(disc.x_um - disc.radius_um for disc in self.discs),
            max(disc.x_um + disc.radius_um for disc in self.discs),
        )


StructureKind = Literal["vessel", "follicle", "gland"]


@dataclass(frozen=True)
class Form:
    """What structures of a kind have in common."""

    kind: StructureKind
    every_um: float
    """Width of skin that has one group of them."""
    together: int
    """How many make a group."""
    spread_um: float
    """Over how much their places in a group vary."""
    depth: tuple[float, float]
    """Least and greatest depth, as shares of the section's thickness."""
    half_width_um: tuple[float, float]
    aspect: tuple[float, float]
    """Height over width."""
    inside: float
    """Size of the inside as a share of the whole."""


FORMS = (
    Form("vessel", 260, 1, 0, (0.1, 0.85), (14, 50), (0.6, 1.1), 0.72),
    Form("follicle", 1500, 1, 0, (0.1, 0.2), (45, 75), (5, 9), 0.45),
    Form("gland", 1900, 9, 220, (0.5, 0.62), (20, 32), (0.8, 1.2), 0.4),
)


@dataclass(frozen=True)
class Structure:
    """A vessel, follicle or gland: an ellipse with a wall round its inside, slanted by `slant` µm of x a µm of y."""

    kind: StructureKind
    x_um: float
    y_um: float
    half_width_um: float
    half_height_um: float
    slant: float
    inside: float


@dataclass(frozen=True)
class Scene:
    """A section of skin on glass."""

    seed: int
    size_um: tuple[float, float]
    skin: Skin
    structures: tuple[Structure, ...]
    lesion: Lesion | None


@dataclass(frozen=True)
class Layers:
    """Upper borders in µm over x, from above to below; none lies above the one before."""

    horn: Axis
    epidermis: Axis
    papillary_dermis: Axis
    reticular_dermis: Axis
    fat: Axis
    glass_below: Axis


def make_scene(seed: int, lesion: LesionKind, size_um: tuple[float, float]) -> Scene:
    """The scene of a seed."""
    width, height = size_um
    skin = Skin(0.06 * width, 0.94 * width, 0.22 * height, 0.45 * height, 0.08 * height)
    return Scene(seed, size_um, skin, _structures(seed, skin), _lesion(seed, skin) if lesion == "melanoma" else None)


def surface_um(seed: int, skin: Skin, x_um: Axis) -> Axis:
    """Height of the living epidermis's surface over x, from which depth is measured."""
    along = (x_um - skin.left_um) / (skin.right_um - skin.left_um)
    waves = 0.14 * (_wave(x_um, 0.5 * skin.thickness_um, seed, _SURFACE) - 0.5)
    furrows = 50 * (_wave(x_um, 260, seed, _SURFACE + 1) - 0.5)
    surface: Axis = skin.top_um + skin.arch_um * (2 * along - 1) ** 2 + skin.thickness_um * waves + furrows
    return surface


def layers(scene: Scene, x_um: Axis) -> Layers:
    """The borders of the layers over x; where there is no tissue they are one and the same height."""
    seed, skin = scene.seed, scene.skin
    surface = surface_um(seed, skin, x_um)
    from_end = np.minimum(x_um - skin.left_um, skin.right_um - x_um)
    rounding = np.clip(from_end / min(ROUNDING_UM, (skin.right_um - skin.left_um) / 4), 0, 1)
    thickness = skin.thickness_um * (0.94 + 0.08 * _wave(x_um, 1400, seed, _DERMIS))
    bottom = surface + thickness * np.sqrt(rounding * (2 - rounding))
    horn = np.where(from_end > 0, 8 + 20 * _wave(x_um, 45, seed, _EPIDERMIS), 0)
    ridges = 45 + 85 * _wave(x_um, 85, seed, _EPIDERMIS + 1) * _wave(x_um, 900, seed, _EPIDERMIS + 2)
    papillary = 170 + 80 * _wave(x_um, 500, seed, _DERMIS + 1) + 40 * _wave(x_um, 70, seed, _DERMIS + 3)
    fat = skin.thickness_um * (0.72 + 0.16 * _wave(x_um, 700, seed, _DERMIS + 2))
    return Layers(
        horn=surface - horn,
        epidermis=surface,
        papillary_dermis=np.minimum(surface + ridges, bottom),
        reticular_dermis=np.minimum(surface + papillary, bottom),
        fat=np.minimum(surface + np.maximum(fat, papillary), bottom),
        glass_below=bottom,
    )


def borders(of: Layers) -> list[Axis]:
    """The borders from above to below."""
    return [getattr(of, field.name) for field in fields(of)]


def _wave(x_um: Axis, cell_um: float, seed: int, use: int) -> Axis:
    """Smooth chance along x, in [0, 1)."""
    wave: Axis = value_noise(x_um[None] / cell_um, np.zeros((1, 1)), stream(seed, use))[0].astype(np.float64)
    return wave


def _at(seed: int, skin: Skin, x_um: float) -> float:
    return float(surface_um(seed, skin, np.array([x_um]))[0])


def _lesion(seed: int, skin: Skin) -> Lesion:
    """A lesion in the middle third: as wide as a quarter of the section or more, and up to half as deep as it."""
    width = skin.right_um - skin.left_um
    place, breadth, deep, *lobes = draws(3 + 2 * DISCS, stream(seed, _LESION))
    middle = skin.left_um + width * (0.4 + 0.2 * place)
    half = min(width, 3 * skin.thickness_um) * (0.13 + 0.05 * breadth)
    depth = skin.thickness_um * (0.3 + 0.2 * deep)
    return Lesion(tuple(_disc(seed, skin, middle, half, depth, i, lobes[2 * i : 2 * i + 2]) for i in range(DISCS)))


def _disc(
    seed: int, skin: Skin, middle_um: float, half_um: float, depth_um: float, index: int, by_chance: list[float]
) -> Disc:
    """One of the lobes, side by side; the middle ones reach deepest."""
    across = (2 * index / (DISCS - 1) - 1) * 0.85
    x = middle_um + across * half_um
    reach = depth_um * (1 - across**2) * (0.72 + 0.28 * by_chance[0])
    # Lobes stand 0.28 · half_um apart, so that a radius above half of that leaves no gap.
    radius = half_um * (0.24 + 0.12 * by_chance[1])
    return Disc(x, _at(seed, skin, x) + reach - radius, radius)


def _structures(seed: int, skin: Skin) -> tuple[Structure, ...]:
    width = skin.right_um - skin.left_um
    placed = []
    for use, form in enumerate(FORMS, start=_STRUCTURES):
        groups = round(width / form.every_um)
        values = draws(groups * (2 + 5 * form.together), stream(seed, use))
        for group in range(groups):
            along, down, *own = values[group * (2 + 5 * form.together) :]
            for i in range(form.together):
                place = (along * width, down)
                placed.append(_structure(seed, skin, form, place, own[5 * i : 5 * i + 5]))
    return tuple(placed)


def _structure(seed: int, skin: Skin, form: Form, place: tuple[float, float], by_chance: list[float]) -> Structure:
    """One structure, near its group's place: µm from the section's left end, and a share of the form's depths."""
    aside, below, wide, tall, slant = by_chance
    x = skin.left_um + place[0] + form.spread_um * (aside - 0.5)
    depth = skin.thickness_um * _within(form.depth, place[1]) + form.spread_um * (below - 0.5)
    half_width = _within(form.half_width_um, wide)
    half_height = half_width * _within(form.aspect, tall)
    y = _at(seed, skin, x) + depth
    return Structure(form.kind, x, y, half_width, half_height, 0.8 * slant - 0.4, form.inside)


def _within(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share
