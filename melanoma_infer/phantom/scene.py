"""The scene to draw: a section of skin in µm. x points right, y points down, (0, 0) is the slide's upper left corner.

The borders of the skin's layers and of the lesion are functions of x, so every area, outline and depth is a sum over x.
The section is the same with and without a lesion: nothing that is placed randomly depends on the lesion.
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
"""Number of discs that form a lesion's lobed lower border."""

_SURFACE, _EPIDERMIS, _DERMIS, _LESION, _STRUCTURES = 100, 200, 300, 400, 500
"""Keys for the uses of random numbers (`noise.stream`); each use also owns the numbers that follow."""


@dataclass(frozen=True)
class Skin:
    """The section in µm: its left and right end, its highest point, its thickness, and how far the ends hang down."""

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
    """The tissue between the skin's surface and the lower border of these discs."""

    discs: tuple[Disc, ...]

    def lower_um(self, x_um: Axis) -> Axis:
        """The lower border at each x; −∞ beside the lesion."""
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
    """The properties that all structures of a kind share."""

    kind: StructureKind
    every_um: float
    """Width of skin per group."""
    together: int
    """Number of structures in a group."""
    spread_um: float
    """Range of their random positions within a group."""
    depth: tuple[float, float]
    """Smallest and largest depth, as fractions of the section's thickness."""
    half_width_um: tuple[float, float]
    aspect: tuple[float, float]
    """Height over width."""
    inside: float
    """Size of the inside as a fraction of the whole."""


FORMS = (
    Form("vessel", 260, 1, 0, (0.1, 0.85), (14, 50), (0.6, 1.1), 0.72),
    Form("follicle", 1500, 1, 0, (0.1, 0.2), (45, 75), (5, 9), 0.45),
    Form("gland", 1900, 9, 220, (0.5, 0.62), (20, 32), (0.8, 1.2), 0.4),
)


@dataclass(frozen=True)
class Structure:
    """A vessel, follicle or gland: an ellipse with a wall around its inside, slanted by `slant` µm of x per µm of y."""

    kind: StructureKind
    x_um: float
    y_um: float
    half_width_um: float
    half_height_um: float
    slant: float
    inside: float


@dataclass(frozen=True)
class Scene:
    """A section of skin on background."""

    seed: int
    size_um: tuple[float, float]
    skin: Skin
    structures: tuple[Structure, ...]
    lesion: Lesion | None


@dataclass(frozen=True)
class Layers:
    """Upper borders in µm at each x, from top to bottom; none is above the previous one."""

    horn: Axis
    epidermis: Axis
    papillary_dermis: Axis
    reticular_dermis: Axis
    fat: Axis
    background_below: Axis


def make_scene(seed: int, lesion: LesionKind, size_um: tuple[float, float]) -> Scene:
    """The scene that this seed gives."""
    width, height = size_um
    skin = Skin(0.06 * width, 0.94 * width, 0.22 * height, 0.45 * height, 0.08 * height)
    return Scene(seed, size_um, skin, _structures(seed, skin), _lesion(seed, skin) if lesion == "melanoma" else None)


def surface_um(seed: int, skin: Skin, x_um: Axis) -> Axis:
    """Surface of the living epidermis (y) at each x, from which depth is measured."""
    along = (x_um - skin.left_um) / (skin.right_um - skin.left_um)
    waves = 0.14 * (_wave(x_um, 0.5 * skin.thickness_um, seed, _SURFACE) - 0.5)
    furrows = 50 * (_wave(x_um, 260, seed, _SURFACE + 1) - 0.5)
    surface: Axis = skin.top_um + skin.arch_um * (2 * along - 1) ** 2 + skin.thickness_um * waves + furrows
    return surface


def layers(scene: Scene, x_um: Axis) -> Layers:
    """The borders of the layers at each x; where there is no tissue they coincide."""
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
        background_below=bottom,
    )


def borders(of: Layers) -> list[Axis]:
    """The borders from top to bottom."""
    return [getattr(of, field.name) for field in fields(of)]


def _wave(x_um: Axis, cell_um: float, seed: int, use: int) -> Axis:
    """Smooth noise along x, in [0, 1)."""
    wave: Axis = value_noise(x_um[None] / cell_um, np.zeros((1, 1)), stream(seed, use))[0].astype(np.float64)
    return wave


def _surface_at(seed: int, skin: Skin, x_um: float) -> float:
    return float(surface_um(seed, skin, np.array([x_um]))[0])


def _lesion(seed: int, skin: Skin) -> Lesion:
    """A lesion near the middle: about a third of the section (or of three thicknesses) wide, up to half of it deep."""
    width = skin.right_um - skin.left_um
    place, breadth, deep, *lobes = draws(3 + 2 * DISCS, stream(seed, _LESION))
    middle = skin.left_um + width * (0.4 + 0.2 * place)
    half = min(width, 3 * skin.thickness_um) * (0.13 + 0.05 * breadth)
    depth = skin.thickness_um * (0.3 + 0.2 * deep)
    discs = []
    for i in range(DISCS):  # side by side; the middle ones reach deepest
        across = (2 * i / (DISCS - 1) - 1) * 0.85
        x = middle + across * half
        reach = depth * (1 - across**2) * (0.72 + 0.28 * lobes[2 * i])
        # Lobes are 0.28 · half apart, so a radius above half of that leaves no gap.
        radius = half * (0.24 + 0.12 * lobes[2 * i + 1])
        discs.append(Disc(x, _surface_at(seed, skin, x) + reach - radius, radius))
    return Lesion(tuple(discs))


def _structures(seed: int, skin: Skin) -> tuple[Structure, ...]:
    """The structures of each form, in groups spread along the section."""
    width = skin.right_um - skin.left_um
    placed = []
    for use, form in enumerate(FORMS, start=_STRUCTURES):
        groups = round(width / form.every_um)
        values = draws(groups * (2 + 5 * form.together), stream(seed, use))
        for group in range(groups):
            along, down, *own = values[group * (2 + 5 * form.together) :]
            for i in range(form.together):
                aside, below, wide, tall, slant = own[5 * i : 5 * i + 5]
                x = skin.left_um + along * width + form.spread_um * (aside - 0.5)
                depth = skin.thickness_um * _within(form.depth, down) + form.spread_um * (below - 0.5)
                y = _surface_at(seed, skin, x) + depth
                half_width = _within(form.half_width_um, wide)
                half_height = half_width * _within(form.aspect, tall)
                slanted = 0.8 * slant - 0.4
                placed.append(Structure(form.kind, x, y, half_width, half_height, slanted, form.inside))
    return tuple(placed)


def _within(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share
