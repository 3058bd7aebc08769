"""Slides made for tests: files that OpenSlide and Pillow open, damaged copies of them, and slides held in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.records import SlideFacts
from melanoma_infer.slides.base import Closing, RegionUnreadableError
from melanoma_infer.slides.slide import Slide

BACKGROUND = (245, 245, 245)
EOSIN = (215, 130, 175)
HAEMATOXYLIN = (90, 60, 150)
MELANIN = (70, 45, 30)
Rgb = NDArray[np.uint8]


def solid(width: int, height: int, colour: tuple[int, int, int] = BACKGROUND) -> Rgb:
    """One colour (height, width, 3)."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour
    return pixels


def noise(width: int, height: int, seed: int = 0) -> Rgb:
    """Pixels (height, width, 3) of which no two neighbours agree, so that a shift by one is seen."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int, seed: int = 0) -> Rgb:
    """Pixels (height, width, 3) that JPEG keeps well: blurred noise."""
    coarse = Image.fromarray(noise(max(2, width // 32), max(2, height // 32), seed))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def halved(rgb: Rgb) -> Rgb:
    """Every second pixel: the next pyramid level, ⌈h/2⌉ × ⌈w/2⌉."""
    return np.ascontiguousarray(rgb[::2, ::2])


def write_tiff(
    path: Path,
    rgb: Rgb,
    *,
    mpp: tuple[float, float] | None = (0.5, 0.5),
    levels: int = 1,
    compression: str | None = None,
    tile: int = 256,
) -> Path:
    """A tiled, pyramidal generic TIFF that OpenSlide opens; mpp stands in the resolution tags, in pixels a centimetre.

    Args:
        path: where to.
        rgb: uint8 (h, w, 3), level 0; each further level is half as large.
        mpp: µm per pixel (x, y); None leaves the resolution out.
        levels: pyramid levels.
        compression: None or "jpeg".
        tile: side of the TIFF's tiles.
    """
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp[0], 1e4 / mpp[1]), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            writer.write(
                rgb,
                tile=(tile, tile),
                photometric="rgb",
                compression=compression,
                compressionargs=None if compression is None else {"level": 95},
                subfiletype=1 if level else 0,
                metadata=None,
                **resolution,
            )
            rgb, resolution = halved(rgb), {}
    return path


def write_svs(
    path: Path,
    rgb: Rgb,
    *,
    mpp: str = "0.5",
    power: str = "20",
    extra: str = "",
    levels: int = 1,
    compression: str | None = None,
    photometric: str = "rgb",
) -> Path:
    """An Aperio-like SVS; mpp, power and extra stand in its ImageDescription, as text."""
    size = f"{rgb.shape[1]}x{rgb.shape[0]}"
    text = f"Aperio Image Library v11.2.1\r\n{size} (256x256) Q=95|AppMag = {power}|MPP = {mpp}{extra}"
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            writer.write(
                rgb,
                tile=(256, 256),
                photometric=photometric,
                compression=compression,
                compressionargs=None if compression is None else {"level": 95},
                description=text,
                subfiletype=1 if level else 0,
                metadata=None,
            )
            rgb = halved(rgb)
    return path


def with_damaged_tile(source: Path, target: Path, *, tile: int = 0, level: int = 0, length: int = 64) -> Path:
    """A copy of a TIFF in which the first bytes of one compressed tile are zero."""
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[level]
        start = page.dataoffsets[tile]
        length = min(length, page.databytecounts[tile])
    content = bytearray(source.read_bytes())
    content[start : start + length] = bytes(length)
    target.write_bytes(content)
    return target


def with_tile_left_out(source: Path, target: Path, *, tile: int = 0, level: int = 0) -> Path:
    """A copy of a classic little-endian TIFF in which one tile of a page has the offset and the length 0."""
    target.write_bytes(source.read_bytes())
    with tifffile.TiffFile(target, mode="r+") as tiff:
        page = tiff.pages[level]
        for tag, values in (("TileOffsets", page.dataoffsets), ("TileByteCounts", page.databytecounts)):
            page.tags[tag].overwrite([0 if i == tile else value for i, value in enumerate(values)])
    return target


def write_image(path: Path, pixels: NDArray[np.generic]) -> Path:
    """A plain image in the format that the suffix names."""
    Image.fromarray(pixels).save(path)
    return path


def encoded(pixels: NDArray[np.generic], kind: str) -> bytes:
    """The bytes of a plain image of that kind ("PNG", "JPEG", "TIFF", "BMP")."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def facts_of(
    sizes: Sequence[tuple[int, int]],
    *,
    downsamples: Sequence[float] | None = None,
    scale: Scale | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    is_phantom: bool = False,
) -> SlideFacts:
    """Facts of a slide with levels of these sizes (width, height)."""
    return SlideFacts(
        reader="array",
        reader_version="1",
        vendor="",
        size_l0=SizePx(*sizes[0]),
        level_downsamples=tuple(downsamples or (sizes[0][0] / width for width, _ in sizes)),
        level_sizes=tuple(SizePx(*size) for size in sizes),
        scale=scale,
        stated_scales=(),
        objective_power=None,
        background=background,
        quickhash=None,
        is_phantom=is_phantom,
        bounds=None,
    )


class ArraySlide(Closing):
    """A slide held in memory: levels of RGB or RGBA, and rectangles of level 0 in which no read succeeds."""

    def __init__(
        self,
        *levels: Rgb,
        damaged_l0: Sequence[RectPx] = (),
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        self.levels = [_with_alpha(level) for level in levels]
        self.damaged_l0 = list(damaged_l0)
        self.facts = facts_of([level.shape[1::-1] for level in levels], background=background)
        self.reads: list[tuple[int, RectPx]] = []

    def read_region(self, level: int, rect_level: RectPx) -> NDArray[np.uint8]:
        self.reads.append((level, rect_level))
        downsample = self.facts.level_downsamples[level]
        for bad in self.damaged_l0:
            apart_x = rect_level.right * downsample <= bad.x or rect_level.x * downsample >= bad.right
            apart_y = rect_level.bottom * downsample <= bad.y or rect_level.y * downsample >= bad.bottom
            if not (apart_x or apart_y):
                raise RegionUnreadableError
        return self.levels[level][rect_level.y : rect_level.bottom, rect_level.x : rect_level.right]


def _with_alpha(pixels: Rgb) -> Rgb:
    if pixels.shape[2] == 4:
        return pixels
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=2)


@contextmanager
def reading(slide: ArraySlide) -> Iterator[Slide]:
    """A slide held in memory, as one that was opened and can be opened again."""
    yield Slide(Path("in-memory"), slide, lambda _path, _watch: slide)
