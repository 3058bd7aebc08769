"""Draws any block of a scene at any scale: a label for each pixel, then a tone (how dark it is), then its colour.

A pixel depends only on the position of its centre in µm, so a block drawn alone equals the same block of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom import textures
from melanoma_infer.phantom.noise import Axis, Field
from melanoma_infer.phantom.scene import Scene, Structure, borders, layers

Labels = NDArray[np.uint8]
Rgb = NDArray[np.uint8]


class Label(IntEnum):
    """What a pixel shows. The layers of the skin are in order of depth."""

    BACKGROUND = 0
    HORN = 1
    EPIDERMIS = 2
    PAPILLARY_DERMIS = 3
    RETICULAR_DERMIS = 4
    FAT = 5
    BACKGROUND_BELOW = 6
    VESSEL = 7
    BLOOD = 8
    ADNEXA = 9
    KERATIN = 10
    LUMEN = 11
    MELANOMA = 12


WALL_AND_INSIDE = {
    "vessel": (Label.VESSEL, Label.BLOOD),
    "follicle": (Label.ADNEXA, Label.KERATIN),
    "gland": (Label.ADNEXA, Label.LUMEN),
}

BACKGROUND_RGB = (243, 242, 244)

# Colours at tones 0, 0.35, 0.7 and 1 (STOPS): gaps, pale, dark, and nuclei.
RAMPS: dict[Label, tuple[tuple[int, int, int], ...]] = {
    Label.BACKGROUND: (BACKGROUND_RGB,) * 4,
    Label.HORN: ((246, 214, 222), (232, 160, 186), (206, 118, 158), (160, 90, 140)),
    Label.EPIDERMIS: ((224, 186, 220), (198, 148, 202), (164, 112, 182), (96, 62, 132)),
    Label.PAPILLARY_DERMIS: ((247, 226, 234), (240, 196, 214), (228, 164, 194), (124, 80, 150)),
    Label.RETICULAR_DERMIS: ((249, 228, 236), (238, 182, 206), (220, 144, 182), (128, 82, 148)),
    Label.FAT: ((246, 232, 238), (243, 222, 232), (224, 156, 190), (130, 84, 150)),
    Label.BACKGROUND_BELOW: (BACKGROUND_RGB,) * 4,
    Label.VESSEL: ((238, 186, 206), (222, 146, 182), (196, 112, 164), (100, 60, 134)),
    Label.BLOOD: ((246, 220, 226), (226, 132, 140), (204, 92, 106), (190, 76, 92)),
    Label.ADNEXA: ((226, 190, 222), (202, 152, 206), (170, 118, 188), (100, 66, 136)),
    Label.KERATIN: ((244, 208, 200), (232, 174, 172), (208, 138, 146), (180, 110, 124)),
    Label.LUMEN: ((247, 232, 238), (245, 226, 234), (240, 214, 226), (226, 190, 210)),
    Label.MELANOMA: ((150, 104, 132), (112, 72, 104), (82, 50, 80), (46, 26, 52)),
}  # fmt: skip
STOPS = (0.0, 0.35, 0.7, 1.0)


TONES = np.linspace(0, 1, 256)
PALETTE: Rgb = np.concatenate(
    [np.stack([np.interp(TONES, STOPS, channel) for channel in zip(*RAMPS[label], strict=True)], 1) for label in Label]
).round().astype(np.uint8)  # fmt: skip
"""Colours (labels · 256, 3): 256 tones for each label."""


def draw(scene: Scene, block: RectPx, um_per_px: float) -> Rgb:
    """The RGB pixels (h, w, 3), uint8, of a block whose coordinates are pixels of um_per_px µm."""
    labels = draw_labels(scene, block, um_per_px)
    if labels.max() == Label.BACKGROUND:
        return np.broadcast_to(PALETTE[0], (*labels.shape, 3))
    # Single precision resolves 4 nm at 75 mm, and takes half the time.
    x, y = (place.astype(np.float32) for place in centres_um(block, um_per_px))
    tones = np.zeros(labels.shape, np.float32)  # how dark each pixel is within the colours of its label, 0–1
    for texture, its_labels in TEXTURES:
        here = its_labels.take(labels)
        if here.any():
            np.copyto(tones, texture(scene.seed, x, y, um_per_px), where=here)
    at = labels.astype(np.intp) * 256 + np.clip(tones * 255, 0, 255).astype(np.intp)
    return PALETTE.take(at, axis=0)


def draw_labels(scene: Scene, block: RectPx, um_per_px: float) -> Labels:
    """The Label at the centre of each pixel (h, w) of a block."""
    x, y = centres_um(block, um_per_px)
    of = layers(scene, x[0])
    labels = np.zeros((block.height, block.width), np.uint8)
    if y[-1, 0] < of.horn.min() or y[0, 0] >= of.background_below.max():
        return labels
    for border in borders(of):
        labels += y >= border
    labels[labels == Label.BACKGROUND_BELOW] = Label.BACKGROUND
    for structure in scene.structures:
        _put(labels, structure, x, y)
    if scene.lesion is not None:
        labels[(y >= of.epidermis) & (y < scene.lesion.lower_um(x[0]))] = Label.MELANOMA
    return labels


def centres_um(block: RectPx, um_per_px: float) -> tuple[Axis, Axis]:
    """The centres of a block's pixels in µm: x (1, w) and y (h, 1)."""
    x = (np.arange(block.x, block.right, dtype=np.float64) + 0.5) * um_per_px
    y = (np.arange(block.y, block.bottom, dtype=np.float64) + 0.5) * um_per_px
    return x[None, :], y[:, None]


def _put(labels: Labels, structure: Structure, x_um: Axis, y_um: Axis) -> None:
    """Draw a structure into the labels where there is dermis or fat."""
    rows = np.flatnonzero(np.abs(y_um[:, 0] - structure.y_um) <= structure.half_height_um)
    reach = structure.half_width_um + abs(structure.slant) * structure.half_height_um
    columns = np.flatnonzero(np.abs(x_um[0] - structure.x_um) <= reach)
    if not len(rows) or not len(columns):
        return
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    down = y_um[part[0]] - structure.y_um
    across = x_um[:, part[1]] - structure.x_um - structure.slant * down
    radius2 = (across / structure.half_width_um) ** 2 + (down / structure.half_height_um) ** 2
    wall, inside = WALL_AND_INSIDE[structure.kind]
    here = labels[part]
    skin = (here >= Label.PAPILLARY_DERMIS) & (here <= Label.FAT)
    here[skin & (radius2 <= 1)] = wall
    here[skin & (radius2 <= structure.inside**2)] = inside


Texture = Callable[[int, Field, Field, float], Field]


def _labelled(*labels: Label) -> NDArray[np.bool_]:
    """A mask over all labels: whether each is one of these."""
    return np.isin(np.arange(len(Label)), labels)


TEXTURES: tuple[tuple[Texture, NDArray[np.bool_]], ...] = (
    (textures.collagen, _labelled(Label.RETICULAR_DERMIS)),
    (textures.papillae, _labelled(Label.PAPILLARY_DERMIS, Label.VESSEL)),
    (textures.cells, _labelled(Label.EPIDERMIS, Label.ADNEXA)),
    (textures.nests, _labelled(Label.MELANOMA)),
    (textures.fat, _labelled(Label.FAT)),
    (textures.grains, _labelled(Label.HORN, Label.BLOOD, Label.KERATIN, Label.LUMEN)),
)
