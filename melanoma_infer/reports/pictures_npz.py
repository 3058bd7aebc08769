"""pictures.npz: what the pictures of a result are drawn from, so that rescoring can draw them without the slide.

The thumbnail and the tiles of the gallery are JPEGs, as bytes; masks and evidence are whole arrays.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_infer.records import EvidenceMap, SlideView
from melanoma_infer.reports.npz import UNREADABLE, packed, unpacked
from melanoma_infer.result import SlideResult

QUALITY = 92
MASKS = ("tissue", "ink", "unread")


def render(result: SlideResult) -> bytes:
    """The archive; empty for a result without pictures."""
    view, arrays = result.view, {}
    if view is not None:
        arrays = {
            "thumbnail": _jpeg(view.thumbnail),
            "px_l0": np.float64(view.px_l0),
            **{name: getattr(view, name) for name in MASKS},
            "evidence": view.evidence.values,
            "cell_l0": np.array(view.evidence.cell_l0, np.float64),
            "source": np.str_(view.evidence.source),
        }
    arrays |= {f"tile_{tile.row}": _jpeg(tile.pixels) for tile in result.gallery}
    return packed(arrays)


def read(path: Path) -> tuple[SlideView | None, dict[int, NDArray[np.uint8]]]:
    """The view, and the pixels of the gallery's tiles by row of the tile table; nothing if the file cannot be read."""
    try:
        arrays = unpacked(path)
        tiles = {int(name.removeprefix("tile_")): _pixels(arrays[name]) for name in arrays if name.startswith("tile_")}
        if "thumbnail" not in arrays:
            return None, tiles
        source: Any = arrays["source"].item()
        width, height = (float(side) for side in arrays["cell_l0"])
        evidence = EvidenceMap(arrays["evidence"], (width, height), source)
        masks = {name: arrays[name] for name in MASKS}
        return SlideView(_pixels(arrays["thumbnail"]), arrays["px_l0"].item(), evidence=evidence, **masks), tiles
    except UNREADABLE:
        return None, {}


def _jpeg(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=QUALITY, subsampling=0)
    return np.frombuffer(content.getvalue(), np.uint8)


def _pixels(jpeg: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB"))
