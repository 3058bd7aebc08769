"""Writes a slide of any size in bounded memory: level 0 of a real slide, mirrored repeatedly.

    python benchmarks/large_slide.py SOURCE.svs OUT.svs --width 100000 --height 80000

The result is an Aperio-like pyramid (1, 4, 16) of 256 px JPEG tiles with the source's scale. Equal tiles are encoded
once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray
from PIL import Image

TILE_PX = 256
PERIOD_PX = 4096
"""The source is cropped to at most half of this, so that its mirrored copies repeat after whole tiles."""
DOWNSAMPLES = (1, 4, 16)
QUALITY = 60
MARGIN_PX = 2048
"""Background around the tissue, in pixels of level 0."""
BACKGROUND = 244


def write_large_slide(source: Path, out: Path, width: int, height: int, margin: int = MARGIN_PX) -> None:
    """Write the slide; at most a few thousand encoded tiles are in memory."""
    with openslide.OpenSlide(source) as slide:
        sides = [min(side // TILE_PX * TILE_PX, PERIOD_PX // 2) for side in slide.dimensions]
        pixels = np.asarray(slide.read_region((0, 0), 0, (sides[0], sides[1])).convert("RGB"))
        mpp = slide.properties[openslide.PROPERTY_NAME_MPP_X]
    text = f"Aperio Image Library v11.2.1\r\n{width}x{height} (256x256) JPEG/RGB Q={QUALITY}|AppMag = 20|MPP = {mpp}"
    with tifffile.TiffWriter(out, bigtiff=True) as writer:
        for downsample in DOWNSAMPLES:
            small = np.asarray(Image.fromarray(pixels).reduce(downsample))
            shape = (height // downsample, width // downsample, 3)
            writer.write(
                _encoded_tiles(small, shape, margin // downsample),
                shape=shape,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(1, 1),
                compression="jpeg",
                subfiletype=1 if downsample > 1 else 0,
                description=text,
                metadata=None,
            )


def _encoded_tiles(small: NDArray[np.uint8], shape: tuple[int, int, int], margin: int) -> Iterator[bytes]:
    """The JPEG tiles of a level, row by row."""

    @lru_cache(maxsize=4096)
    def encoded(rows: bytes, columns: bytes) -> bytes:
        y, x = (np.frombuffer(each, np.int64) for each in (rows, columns))
        tile = small[np.ix_(y, x)]
        tile[y < 0] = BACKGROUND
        tile[:, x < 0] = BACKGROUND
        return bytes(
            imagecodecs.jpeg8_encode(tile, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
        )

    columns = [_mirrored(x, shape[1], small.shape[1], margin) for x in range(0, shape[1], TILE_PX)]
    for y in range(0, shape[0], TILE_PX):
        rows = _mirrored(y, shape[0], small.shape[0], margin)
        for each in columns:
            yield encoded(rows, each)


def _mirrored(start: int, side: int, period: int, margin: int) -> bytes:
    """The source's rows (or columns) for one tile; -1 for background."""
    at: NDArray[Any] = np.arange(start, start + TILE_PX)
    within = at % (2 * period)
    index = np.where(within < period, within, 2 * period - 1 - within)
    index[(at < margin) | (at >= side - margin)] = -1
    return index.astype(np.int64).tobytes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, required=True, help="pixels of level 0")
    parser.add_argument("--height", type=int, required=True, help="pixels of level 0")
    parser.add_argument("--margin", type=int, default=MARGIN_PX, help="background around the tissue, pixels of level 0")
    given = parser.parse_args()
    write_large_slide(given.source, given.out, given.width, given.height, given.margin)
