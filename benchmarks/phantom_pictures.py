"""The pictures of docs/phantom.md: one a style at high power, one a style and a hard case at the model's scale.

python benchmarks/phantom_pictures.py docs/phantom
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.options import CASES, Kind, Options
from melanoma_infer.phantom.scene import Scene, make_scene
from melanoma_infer.phantom.styles import STYLES

SIZE_UM = (12_000.0, 9000.0)
WIDTH, HEIGHT = 440, 330
SEED = 6


def view(scene: Scene, um_per_px: float, below_um: float) -> np.ndarray:
    """A picture with the lesion site at its middle, `below_um` under the surface."""
    section = scene.sections[0]
    site = section.skin.site_um
    d = section.layers.reference[int(site)] + below_um
    x, y = (float(at[0]) for at in section.frame.slide(np.array([site]), np.array([d])))
    left, top = round(x / um_per_px - WIDTH / 2), round(y / um_per_px - HEIGHT / 2)
    return draw(scene, RectPx(left, top, WIDTH, HEIGHT), um_per_px)


def save(path: Path, pixels: np.ndarray) -> None:
    """Write a JPEG of at most 60 kB."""
    for quality in (82, 75, 65, 55, 45):
        Image.fromarray(pixels).save(path, quality=quality, optimize=True)
        if path.stat().st_size <= 60_000:
            return


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        scene = make_scene(SEED, "melanoma", SIZE_UM, Options(style=style, depth_mm=1.2))
        halves = view(scene, 5.859375, 700), view(scene, 0.5, 60)
        save(out / f"style-{style}.jpg", np.concatenate([half[:, 110:330] for half in halves], axis=1))
    for case in CASES:
        kind: Kind = "nevus" if case in ("dark", "large") else "melanoma"
        options = Options(style="A", cases=frozenset({case}), depth_mm=1.2)
        power = {"blur": (1.0, 100), "polypoid": (5.859375, 0), "ink": (5.859375, 4000)}.get(case, (5.859375, 600))
        save(out / f"case-{case}.jpg", view(make_scene(SEED, kind, SIZE_UM, options), *power))


if __name__ == "__main__":
    main()
