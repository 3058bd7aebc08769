"""The truth about a scene, computed from its geometry and not from its pixels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import SizePx
from melanoma_infer.phantom.mark import CAUTION, GENERATOR
from melanoma_infer.phantom.noise import Axis
from melanoma_infer.phantom.scene import LesionKind, Scene, layers

STEP_UM = 0.25
"""Step along x of the sums for areas and depths."""
OUTLINE_STEP_UM = 4.0
"""Step along x between the points of an outline."""

Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Truth:
    """The truth about a phantom slide, as in the JSON file beside it."""

    generator: str
    seed: int
    size_um: tuple[float, float]
    size_l0: tuple[int, int]
    um_per_px: float
    tissue_mm2: float
    """Area between the upper border of the horn and the lower edge of the section."""
    lesion: LesionKind
    area_mm2: float
    depth_mm: float | None
    """Depth of the lesion's deepest point below the living epidermis's surface right above; None without a lesion."""
    deepest_um: tuple[float, float] | None
    """Position (x, y) of that point."""
    outline_um: Outline
    outline_l0: Outline
    caution: str = CAUTION


def truth_of(scene: Scene, um_per_px: float) -> Truth:
    """The truth about a scene that is drawn at this scale."""
    outline = outline_um(scene)
    size = size_l0(scene, um_per_px)
    steps = np.arange(scene.skin.left_um, scene.skin.right_um, STEP_UM) + STEP_UM / 2
    skin = layers(scene, steps)
    x, top, height = _lesion_heights(scene, STEP_UM)
    at = int(height.argmax()) if len(height) else None
    return Truth(
        generator=GENERATOR,
        seed=scene.seed,
        size_um=scene.size_um,
        size_l0=(size.width, size.height),
        um_per_px=um_per_px,
        tissue_mm2=float((skin.background_below - skin.horn).sum()) * STEP_UM / 1e6,
        lesion="none" if scene.lesion is None else "melanoma",
        area_mm2=float(height.sum()) * STEP_UM / 1e6,
        depth_mm=None if at is None else float(height[at]) / 1000,
        deepest_um=None if at is None else (float(x[at]), float(top[at] + height[at])),
        outline_um=_rounded(outline),
        outline_l0=_rounded(outline / um_per_px),
    )


def size_l0(scene: Scene, um_per_px: float) -> SizePx:
    """The slide's size in level-0 pixels."""
    return SizePx(*(round(um / um_per_px) for um in scene.size_um))


def render(truth: Truth) -> str:
    """The truth as JSON, one value per line."""
    lines = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in asdict(truth).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def outline_um(scene: Scene) -> NDArray[np.float64]:
    """The lesion's outline (n, 2) as x, y in µm: along the surface, and back along the lower border."""
    x, top, height = _lesion_heights(scene, OUTLINE_STEP_UM)
    above, below = np.stack([x, top], axis=1), np.stack([x, top + height], axis=1)
    return np.concatenate([above, below[::-1]])


def _lesion_heights(scene: Scene, step_um: float) -> tuple[Axis, Axis, Axis]:
    """x, upper border and vertical extent of the lesion in µm, at the middle of each step; empty without a lesion."""
    if scene.lesion is None:
        return np.empty(0), np.empty(0), np.empty(0)
    first, last = scene.lesion.ends_um
    x = np.arange(first + step_um / 2, last, step_um)
    top = layers(scene, x).epidermis
    height = scene.lesion.lower_um(x) - top
    return x[height > 0], top[height > 0], height[height > 0]


def _rounded(outline: NDArray[np.float64]) -> Outline:
    return tuple((round(float(x), 2), round(float(y), 2)) for x, y in outline)
