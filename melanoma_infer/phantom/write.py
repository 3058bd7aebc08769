"""Writes a scene as a pyramidal SVS of JPEG tiles, with its truth beside it. No level is ever in memory as a whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from imagecodecs import jpeg8_encode
from tifffile import TiffWriter

from melanoma_infer.errors import OutputError, UsageError
from melanoma_infer.geometry import PLAUSIBLE_UM_PER_PX, RectPx, SizePx
from melanoma_infer.phantom.draw import draw
from melanoma_infer.phantom.mark import GENERATOR
from melanoma_infer.phantom.materials import Rgb
from melanoma_infer.phantom.scene import Scene
from melanoma_infer.phantom.styles import STYLES
from melanoma_infer.phantom.truth import render, size_l0, truth_of
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.runtime.files import why_not_written, write_atomically, written_aside
from melanoma_infer.slides.phantom_mark import PHANTOM_MARK

TILE_PX = 256
FACTORS = (1, 4, 16)
"""Downsample factors of the levels, as in Aperio's slides."""
SIDE_UM = (1_000.0, 75_000.0)
"""Shortest and longest side: a glass slide is 75 mm long, and less than 1 mm has no room for a section."""
PIXELS_MAX = 1 << 33
"""Largest number of level-0 pixels: 25 × 21 mm at 0.25 µm/px."""


def write_phantom(path: Path, scene: Scene, um_per_px: float, *, threads: int | None = None) -> None:
    """Write a scene as an SVS slide, and its truth (`truth_file`) when the slide is complete.

    Raises:
        UsageError: the slide would be too small or too large, or no scanner has its scale.
        OutputError: a file cannot be written.
    """
    require_drawable(scene.size_um, um_per_px)
    try:
        truth_file(path).unlink(missing_ok=True)
        with written_aside(path) as aside:
            _write_svs(aside, scene, um_per_px, threads or available_cores())
        write_atomically(truth_file(path), render(truth_of(scene, um_per_px)).encode())
    except OSError as error:
        raise OutputError(f"--out: the phantom cannot be written: {why_not_written(error)}") from error


def is_written(path: Path, scene: Scene, um_per_px: float) -> bool:
    """Whether the slide at this path shows this scene at this scale."""
    try:
        return path.is_file() and truth_file(path).read_bytes() == render(truth_of(scene, um_per_px)).encode()
    except OSError:
        return False


def truth_file(path: Path) -> Path:
    """The path of a slide's truth: FILE.json for FILE.svs."""
    return path.with_suffix(".json")


def require_drawable(size_um: tuple[float, float], um_per_px: float) -> None:
    """Raise unless a slide of this size and scale can be drawn.

    Raises:
        UsageError: it would be too small or too large, or no scanner has its scale.
    """
    low, high = PLAUSIBLE_UM_PER_PX
    if not low <= um_per_px <= high:
        raise UsageError(f"No slide scanner has {um_per_px:g} µm/px. Choose an --mpp from {low} to {high}.")
    if not all(SIDE_UM[0] <= side <= SIDE_UM[1] for side in size_um):
        raise UsageError(
            f"The slide would be {size_um[0]:g} × {size_um[1]:g} µm, but each side must be {SIDE_UM[0]:g} to "
            f"{SIDE_UM[1]:g} µm. Choose another size: --size-um 9000,6000"
        )
    pixels = size_um[0] * size_um[1] / um_per_px**2
    if pixels > PIXELS_MAX:
        raise UsageError(
            f"The slide would have {pixels / 1e9:.1f} gigapixels, but the limit is {PIXELS_MAX / 1e9:.1f}. Choose a "
            "smaller --size-um or a larger --mpp."
        )


def tiles(scene: Scene, size: SizePx, um_per_px: float, *, threads: int = 1) -> Iterator[bytes]:
    """The JPEG tiles of a level, row by row, prefetched by threads: at most two per thread."""
    waiting = (
        RectPx(x, y, TILE_PX, TILE_PX) for y in range(0, size.height, TILE_PX) for x in range(0, size.width, TILE_PX)
    )
    quality = STYLES[scene.options.style].quality

    def encoded(block: RectPx) -> bytes:
        return _jpeg(draw(scene, block, um_per_px), quality)

    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            pending.extend(pool.submit(encoded, block) for block in islice(waiting, 2 * threads))
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(encoded, block) for block in islice(waiting, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def level_sizes(size: SizePx) -> list[tuple[int, SizePx]]:
    """Downsample factor and size of each level; levels smaller than a tile are omitted, as nothing reads them."""
    sizes = [(factor, SizePx(size.width // factor, size.height // factor)) for factor in FACTORS]
    return [(factor, level) for factor, level in sizes if factor == 1 or max(level.width, level.height) >= TILE_PX]


def _write_svs(path: Path, scene: Scene, um_per_px: float, threads: int) -> None:
    size, quality = size_l0(scene, um_per_px), STYLES[scene.options.style].quality
    # Compressed tiles are far smaller than their pixels, so if the pixels fit a classic TIFF, the file does.
    with TiffWriter(path, bigtiff=3 * size.width * size.height >= 1 << 32) as writer:
        for factor, level in level_sizes(size):
            shape = f"{size.width}x{size.height}" + (f" -> {level.width}x{level.height}" if level != size else "")
            # OpenSlide recognises an Aperio slide by its first words, and reads `|key = value` pairs.
            description = (
                f"Aperio Image Library v11.2.1\r\n{shape} ({TILE_PX}x{TILE_PX}) JPEG/YCbCr Q={quality}"
                f"|AppMag = {10 / um_per_px:.3g}|MPP = {um_per_px!r}|{PHANTOM_MARK} = {GENERATOR}"
            )
            writer.write(
                tiles(scene, level, um_per_px * factor, threads=threads),
                shape=(level.height, level.width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(1, 1),
                compression="jpeg",
                description=description,
                subfiletype=0 if factor == 1 else 1,
                metadata=None,
                software=False,
            )


def _jpeg(pixels: Rgb, quality: int) -> bytes:
    return bytes(jpeg8_encode(pixels, quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="444"))
