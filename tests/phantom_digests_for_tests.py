"""Digests of labels, truth and pixels of a few scenes of every style: what version v1 of the phantom is, to the bit.

`python tests/phantom_digests_for_tests.py` prints them as JSON.
"""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np

from melanoma_infer.geometry import RectPx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.labels import draw_labels
from melanoma_infer.phantom.options import CASES, KINDS, Options
from melanoma_infer.phantom.scene import make_scene
from melanoma_infer.phantom.styles import STYLES
from melanoma_infer.phantom.truth import render, truth_of

SIZE_UM = (5000.0, 4000.0)


def digests() -> dict[str, str]:
    """The first 16 hexadecimal digits of SHA-256 of each; every kind and every hard case is in one scene at least."""
    found = {}
    for number, style in enumerate(STYLES):
        cases = frozenset(CASES[number::5]) if number else frozenset[str]()
        options = Options(style, cases, 0.6 if number % 2 else None, 1 + number % 2, 57.0 * number - 160)
        scene = make_scene(1000 + number, KINDS[number % 3], SIZE_UM, options)
        section = scene.sections[0]
        places = np.array([section.skin.site_um]), np.array([200.0])
        x, y = (float(at[0]) for at in section.frame.slide(*places))
        for name, um_per_px, side in (("fine", 0.5, 160), ("coarse", 5.859375, 200)):
            block = RectPx(round(x / um_per_px) - side // 2, round(y / um_per_px) - side // 2, side, side)
            found[f"{style} {name} pixels"] = _digest(draw(scene, block, um_per_px).tobytes())
        labels = draw_labels(scene, RectPx(0, 0, 625, 500), 8.0)
        found[f"{style} labels"] = _digest(labels.tobytes())
        found[f"{style} truth"] = _digest(render(truth_of(scene, 0.5)).encode())
    return found


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(digests(), indent=1))  # noqa: T201
