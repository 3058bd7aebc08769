"""The scene to draw: sections of skin in µm. x points right, y points down, (0, 0) is the slide's upper left corner.

A scene is a seed and options. With another option, everything that does not show it is the same: nothing that is placed
randomly depends on the lesion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melanoma_infer.errors import UsageError
from melanoma_infer.phantom.frame import Frame, direction
from melanoma_infer.phantom.lesion import DEEPEST, Lesion, Site, melanoma, nevus
from melanoma_infer.phantom.nests import Lattice
from melanoma_infer.phantom.noise import draws, stream
from melanoma_infer.phantom.options import Kind, Options
from melanoma_infer.phantom.skin import Layers, Skin, layers_of
from melanoma_infer.phantom.structures import Structure, melanophages, structures_of

_LAYOUT = 700
USUAL_THICKNESS_UM = 4600.0
"""Thickness of skin and fat where the slide has room; a melanoma of more than 4 mm gets thicker skin."""
THICKNESS_OF_HEIGHT = 0.45
SHORTEST = 1.4
"""A section is at least this many times as long as it is thick."""
FILLED = 0.88
"""Part of the slide's width and height that the sections fill at most."""


@dataclass(frozen=True, eq=False)
class Section:
    """One section: where it is, its skin, and what is in it. `nevus` and `melanoma` are None where there is none."""

    frame: Frame
    skin: Skin
    layers: Layers
    structures: tuple[Structure, ...]
    melanophages: Lattice | None
    nevus: Lesion | None
    melanoma: Lesion | None


@dataclass(frozen=True, eq=False)
class Scene:
    """One to four serial sections of a piece of skin on background."""

    seed: int
    kind: Kind
    size_um: tuple[float, float]
    options: Options
    sections: tuple[Section, ...]

    def without_lesion(self) -> Scene:
        """The same scene without its nevus and melanoma."""
        sections = tuple(replace(section, nevus=None, melanoma=None) for section in self.sections)
        return replace(self, kind="none", sections=sections)

    def bare(self) -> Scene:
        """The layers of its skin alone."""
        sections = tuple(
            replace(section, nevus=None, melanoma=None, structures=(), melanophages=None) for section in self.sections
        )
        return replace(self, kind="none", sections=sections)


def make_scene(seed: int, kind: Kind, size_um: tuple[float, float], options: Options | None = None) -> Scene:
    """The scene of this seed.

    Raises:
        UsageError: the skin on a slide of this size is too thin for the melanoma.
    """
    options = options or Options()
    frames, thickness = _layout(seed, size_um, options)
    if kind == "melanoma" and options.depth_mm is not None and options.depth_mm * 1000 > DEEPEST * thickness:
        raise UsageError(
            f"A melanoma of {options.depth_mm:g} mm has no room in skin that is {thickness / 1000:.2g} mm thick, as on "
            f"this slide of {size_um[0]:g} × {size_um[1]:g} µm. Choose a larger slide, fewer sections, or less depth."
        )
    sections = tuple(_section(seed, kind, options, frame, thickness, number) for number, frame in enumerate(frames))
    return Scene(seed, kind, size_um, options, sections)


def _section(seed: int, kind: Kind, options: Options, frame: Frame, thickness: float, number: int) -> Section:
    place = draws(1, stream(seed, _LAYOUT + 1))[0]
    skin = Skin(seed, frame.length_um, thickness, frame.length_um * (0.4 + 0.2 * place), number)
    layers = layers_of(skin, options)
    site = Site(skin, layers, options)
    has_nevus = kind == "nevus" or (kind == "melanoma" and "on-nevus" in options.cases)
    return Section(
        frame=frame,
        skin=skin,
        layers=layers,
        structures=structures_of(skin, layers, options),
        melanophages=melanophages(skin, layers) if "melanophages" in options.cases else None,
        nevus=nevus(site) if has_nevus else None,
        melanoma=melanoma(site) if kind == "melanoma" else None,
    )


def _layout(seed: int, size_um: tuple[float, float], options: Options) -> tuple[list[Frame], float]:
    """Where the sections are, side by side along their normal, and how thick the skin is: all that the slide allows."""
    width, height = size_um
    cos, sin = direction(options.angle_deg)
    bends = draws(2, stream(seed, _LAYOUT))
    room = THICKNESS_OF_HEIGHT * min(width, height) / options.sections
    thickness = min(room, max(USUAL_THICKNESS_UM, 1.1 * 1000 * (options.depth_mm or 0) / DEEPEST))
    while True:
        pitch = 1.12 * (thickness + _room_above(thickness, options))
        length = _length(FILLED * width, FILLED * height, pitch * options.sections, (abs(cos), abs(sin)))
        while length >= SHORTEST * thickness:
            frames = _frames(size_um, options, (cos, sin), (thickness, length), bends)
            if all(_fits(frame, thickness, size_um) for frame in frames):
                return frames, thickness
            length *= 0.93
        thickness *= 0.96


def _frames(
    size_um: tuple[float, float],
    options: Options,
    turned: tuple[float, float],
    strip: tuple[float, float],
    bends: list[float],
) -> list[Frame]:
    (cos, sin), (thickness, length) = turned, strip
    room = _room_above(thickness, options)
    # An arc's ends hang down by length² / (8 · radius).
    sag = room * (0.5 + 0.3 * bends[0] if "curved" in options.cases else 0.08 + 0.22 * bends[0])
    radius = max(length * length / (8 * sag), 1.25 * thickness + 0.3 * length)
    bulge = 1 if bends[1] < 0.75 else -1
    frames = []
    for number in range(options.sections):
        # The middle of the arc, in the section's own direction: room above it, tissue and hanging ends below.
        down = (number - (options.sections - 1) / 2) * 1.12 * (thickness + room)
        down += -0.5 * thickness + (0.1 if bulge > 0 else 0.2) * room
        x, y = size_um[0] / 2 - sin * down, size_um[1] / 2 + cos * down
        frames.append(Frame(x, y, cos, sin, length, radius, bulge))
    return frames


def _fits(frame: Frame, thickness: float, size_um: tuple[float, float]) -> bool:
    """Whether the corners and the middle of a section are on the slide, with a margin."""
    s = np.array([0, 0.5, 1, 0, 0.5, 1]) * frame.length_um
    d = np.array([-0.1, -0.1, -0.1, 1.08, 1.08, 1.08]) * thickness
    return all(
        bool((places > 0.025 * side).all() and (places < 0.975 * side).all())
        for places, side in zip(frame.slide(s, d), size_um, strict=True)
    )


def _room_above(thickness: float, options: Options) -> float:
    """Room for the surface's shape and the section's bend."""
    return thickness * (0.4 + (0.5 if "polypoid" in options.cases else 0) + (0.35 if "curved" in options.cases else 0))


def _length(width: float, height: float, across: float, turned: tuple[float, float]) -> float:
    """The longest strip of this extent across that fits a rectangle when it is turned."""
    cos, sin = turned
    fits = [(width - across * sin) / cos if cos > 1e-6 else width + height]
    fits.append((height - across * cos) / sin if sin > 1e-6 else width + height)
    return min(fits)
