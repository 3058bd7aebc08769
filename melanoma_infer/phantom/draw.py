"""Draws any block of a scene at any scale: labels, then tones, nuclei and pigment, then colours, then the scanner.

A pixel depends only on the position of its centre in µm and on its neighbours within MARGIN_PX, which are drawn with
it, so a block drawn alone equals the same block of the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.labels import Canvas, Label, canvas_of
from melanoma_infer.phantom.materials import Palette, Rgb, palette_of
from melanoma_infer.phantom.noise import draws, smooth, stream, uniform
from melanoma_infer.phantom.scene import Scene
from melanoma_infer.phantom.styles import STYLES, Style
from melanoma_infer.phantom.textures import TEXTURES, Places

Bytes = NDArray[np.uint8]
Wide = NDArray[np.int16]

COARSE_UM = 3.0
"""From this scale on, a pixel is the mean of two places."""
BLUR_UM = 3.0
"""How far a slide that is out of focus is blurred."""
NOISE_UM = 0.5
"""The scale at which a style's noise is stated; a coarser pixel is a mean of more of the sensor's."""
_TEXTURE, _UNEVEN, _PIGMENT, _FOLD, _SENSOR = 10, 920, 930, 940, 950


def draw(scene: Scene, block: RectPx, um_per_px: float) -> Rgb:
    """The RGB pixels (h, w, 3), uint8, of a block whose coordinates are pixels of um_per_px µm."""
    palette, style = palette_of(scene.options.style, scene.seed), STYLES[scene.options.style]
    blur = round(BLUR_UM / um_per_px) if "blur" in scene.options.cases else 0
    margin = blur + (1 if style.sharpen else 0)
    wide = RectPx(block.x - margin, block.y - margin, block.width + 2 * margin, block.height + 2 * margin)
    if um_per_px < COARSE_UM:
        values = _seen(scene, canvas_of(scene, wide, um_per_px), palette, um_per_px)
    else:
        # The mean of two places in each pixel: borders are smooth, and half as much detail is lost.
        values = _seen(scene, canvas_of(scene, wide, um_per_px, at=0.25), palette, 0.7 * um_per_px)
        values += _seen(scene, canvas_of(scene, wide, um_per_px, at=0.75), palette, 0.7 * um_per_px)
        values += 1
        values >>= 1
    if blur:
        values = _mean(values, blur)
    if style.sharpen:
        values = _sharpened(values, style.sharpen)
    return _with_noise(values, block, um_per_px, scene.seed, style)


def _seen(scene: Scene, canvas: Canvas, palette: Palette, um_per_px: float) -> Wide:
    """What is seen of a canvas, before the scanner (h, w, 3)."""
    if not canvas.labels.any():
        return np.broadcast_to(palette.white.astype(np.int16), (*canvas.labels.shape, 3)).copy()
    rgb = _coloured(scene, canvas, palette, um_per_px)
    if "fold" in scene.options.cases:
        _fold(rgb, canvas, scene)
    return rgb.astype(np.int16)


def background_of(scene: Scene) -> tuple[int, int, int]:
    """The RGB of the background before noise."""
    red, green, blue = palette_of(scene.options.style, scene.seed).white
    return int(red), int(green), int(blue)


def _coloured(scene: Scene, canvas: Canvas, palette: Palette, um_per_px: float) -> Rgb:
    """The colours of the tissue, before the scanner."""
    style = STYLES[scene.options.style]
    shape = canvas.labels.shape
    labels = canvas.labels.reshape(-1)
    tone, nuclei, pigment = (np.zeros(labels.size, np.uint8) for _ in range(3))
    makes = _pigment_of(scene)
    for section in scene.sections:
        own = canvas.section.reshape(-1) == section.skin.number
        seed = scene.seed + 7919 * (1 + section.skin.number)
        junction, surface = (curve.astype(np.float32) for curve in (section.layers.junction, section.layers.reference))
        for label, texture in TEXTURES.items():
            at = np.flatnonzero((labels == label) & own)
            if not at.size:
                continue
            s, d = canvas.s_um.reshape(-1).take(at), canvas.d_um.reshape(-1).take(at)
            column = np.minimum(s.astype(np.int32), len(junction) - 1)
            above, below = junction.take(column) - d, d - surface.take(column)
            grain = 1 / style.grain
            places = Places(seed, um_per_px * grain, s * grain, d * grain, above, below, makes)
            drawn = texture(places)
            uneven = smooth(s * (1 / 1900), d * (1 / 1900), stream(scene.seed, _UNEVEN))
            uneven -= 0.5
            for field, target, shift in zip(drawn, (tone, nuclei, pigment), (style.uneven, 0, 0), strict=True):
                if field is not None:
                    target[at] = _as_byte(field + shift * uneven if shift else field)
    core = canvas.core.reshape(-1)
    nuclei[core == 1] = 0
    at = np.flatnonzero(core == 2)
    nuclei[at] = np.maximum(nuclei.take(at), 200)
    rgb = palette.tissue.take(labels.astype(np.int32) * 256 + tone, axis=0)
    _blend(rgb, nuclei, labels, palette.nuclei)
    _blend(rgb, pigment, labels, palette.pigment)
    return rgb.reshape(*shape, 3)


def _as_byte(field: NDArray[np.float32]) -> Bytes:
    scaled = field * np.float32(255)
    np.clip(scaled, 0, 255, out=scaled)
    return scaled.astype(np.uint8)


def _blend(rgb: Rgb, share: Bytes, labels: Bytes, colours: Rgb) -> None:
    """Mix colours into pixels by their share in 255ths: the mean of light, as of details below a pixel."""
    at = np.flatnonzero(share)
    if not at.size:
        return
    pixels = rgb.take(at, axis=0).astype(np.int16)
    towards = colours.astype(np.int16).take(labels.take(at), axis=0)
    towards -= pixels
    towards *= (share.take(at) >> 1)[:, None]
    towards >>= 7
    pixels += towards
    rgb[at] = pixels


def _pigment_of(scene: Scene) -> float:
    """How much pigment the melanocytes make: usually some, much in a dark lesion, none in an unpigmented one."""
    if "unpigmented" in scene.options.cases:
        return 0.0
    usual = draws(1, stream(scene.seed, _PIGMENT))[0]
    return 0.7 + 0.3 * usual if "dark" in scene.options.cases else 0.5 * usual


def _fold(rgb: Rgb, canvas: Canvas, scene: Scene) -> None:
    """Tissue that lies double along a band: its density doubles, so its share of light is squared."""
    place, wide, slant = draws(3, stream(scene.seed, _FOLD))
    section = scene.sections[0]
    middle = section.skin.site_um + 900 * (2 * place - 1)
    band = np.abs(canvas.s_um - middle - (slant - 0.5) * canvas.d_um) < 25 + 60 * wide
    band &= canvas.labels != Label.BACKGROUND
    pixels = rgb[band].astype(np.int32)
    rgb[band] = (pixels * pixels // 245).clip(0, 255)


def _mean(values: Wide, radius: int) -> Wide:
    """The mean over (2 · radius + 1)² pixels; the result is smaller by the radius on every side."""
    side = 2 * radius + 1
    for axis in (0, 1):
        sums = np.cumsum(values, axis=axis, dtype=np.int32)
        first = np.zeros_like(sums[:1] if axis == 0 else sums[:, :1])
        sums = np.concatenate([first, sums], axis=axis)
        after = sums[side:] if axis == 0 else sums[:, side:]
        before = sums[:-side] if axis == 0 else sums[:, :-side]
        values = ((after - before + side // 2) // side).astype(np.int16)
    return values


def _sharpened(values: Wide, amount: int) -> Wide:
    """Values plus a share of their difference from the mean of four neighbours; smaller by one pixel on every side."""
    middle = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1]
    around += values[1:-1, :-2]
    around += values[1:-1, 2:]
    sharper = 4 * middle
    sharper -= around
    sharper *= np.int16(amount)
    sharper >>= 8
    sharper += middle
    return sharper


def _with_noise(values: Wide, block: RectPx, um_per_px: float, seed: int, style: Style) -> Rgb:
    """Values with the sensor's noise, which depends on the pixel alone."""
    amplitude = style.noise * min(NOISE_UM / um_per_px, 1)
    if amplitude < 0.5:
        return values.clip(0, 255).astype(np.uint8)
    columns = np.arange(block.x, block.right)[None, :]
    rows = np.arange(block.y, block.bottom)[:, None]
    bits = (uniform(columns, rows, stream(seed, _SENSOR)) * np.float32(1 << 24)).astype(np.int32)
    for channel in range(3):
        # The mean of two of its four-bit numbers, less their mean: a triangle of ± the amplitude.
        pair = (bits >> 8 * channel & 15) + (bits >> 8 * channel + 4 & 15) - 15
        values[..., channel] += (pair * np.int32(amplitude * 256) // (15 * 256)).astype(np.int16)
    return values.clip(0, 255).astype(np.uint8)
