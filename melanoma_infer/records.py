"""Frozen records that several rooms share, in the order of the flow: slide, tissue, tiles, pixels, outputs, table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.geometry import RectPx, Scale, SizePx

TileStatus = Literal["ok", "unreadable", "incomplete"]
MissingCause = Literal["", "read-failed", "non-finite-output", "not-scanned", "not-scored"]
"""Why a tile has no outputs. Those of a scan: pixels of it never arrived, or it was not scored before the deadline."""
INCOMPLETE: tuple[MissingCause, ...] = ("not-scanned", "not-scored")


@dataclass(frozen=True)
class StatedScale:
    """A scale that a slide states, and where: for example "OME-XML"."""

    source: str
    scale: Scale


@dataclass(frozen=True)
class SlideFacts:
    """What may be known about a slide outside the hospital's archive: an allow-list, never all its properties."""

    reader: str
    reader_version: str
    vendor: str
    size_l0: SizePx
    level_downsamples: tuple[float, ...]
    """Width of each level's pixels in level-0 pixels; the first is 1."""
    level_sizes: tuple[SizePx, ...]
    scale: Scale | None
    """As stated in the file; None if it is not."""
    stated_scales: tuple[StatedScale, ...]
    """Every scale that the file states; they may contradict each other."""
    objective_power: float | None
    background: tuple[int, int, int]
    """Colour of what is outside the slide or transparent: the slide's background colour, else white."""
    quickhash: str | None
    is_phantom: bool
    bounds: RectPx | None
    """The scanned part of level 0, which viewers show alone; None if the file does not name one."""
    doubts: tuple[str, ...] = ()
    """What a reader of the result must know about the slide's files, in sentences without their names."""


@dataclass(frozen=True)
class Identity:
    """Which slide this is: a digest over its member files, and what else a second run compares."""

    digest: str
    size_bytes: int
    mtime_ns: int
    members: int


@dataclass(frozen=True)
class Tissue:
    """Where the tissue is, on a plane of at most 8 µm/px.

    mask: bool (h, w), tissue without pen ink · ink: bool (h, w), excluded as pen ink · unread: bool (h, w), could not
    be read; it counts as tissue, so that its tiles are reported as unreadable · px_l0: side of a mask pixel, l0
    pixels.
    """

    mask: NDArray[np.bool_]
    ink: NDArray[np.bool_]
    unread: NDArray[np.bool_]
    px_l0: float
    saturation_threshold: int | None
    luminance_p95: float
    is_brightfield: bool
    source: Literal["found", "mask", "all"]
    thumbnail: NDArray[np.uint8] | None = None
    """uint8 (h, w, 3): the plane's pixels, for pictures."""


@dataclass(frozen=True)
class Tile:
    """One square of the grid. rect_l0 may reach beyond the slide; outside_fraction is the share that does."""

    index: int
    rect_l0: RectPx
    tissue_fraction: float
    outside_fraction: float


@dataclass(frozen=True)
class NativeTile:
    """A tile's pixels as the slide has them, and how they become the model's input: what a GPU resizes.

    It gets the same bytes as `tiles.pixels.resized`.
    """

    pixels: NDArray[np.uint8]
    """uint8 (h, w, 3 or 4), whole blocks; a fourth byte means nothing, nor does what is beyond `size`."""
    size: tuple[int, int]
    """Rows and columns of block means that count."""
    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the tile among the block means."""
    block_px: int
    """Side of the blocks averaged before the bilinear resize; 1 means none."""
    tile_px: int
    owner: object = None
    """Keeps the pixels' memory from being used again."""

    def matches(self, other: NativeTile) -> bool:
        """Whether both can be resized in one launch."""
        return (self.pixels.shape, self.block_px, self.tile_px) == (other.pixels.shape, other.block_px, other.tile_px)


@dataclass(frozen=True)
class ReadTile:
    """A tile and its pixels, uint8 (tile_px, tile_px, 3); None if they could not be read, or if `native` has them."""

    tile: Tile
    pixels: NDArray[np.uint8] | None
    padded_fraction: float = 0.0
    """Share of the tile that was never scanned: outside the slide, or transparent."""
    native: NativeTile | None = None
    """The pixels before their resize, where the engine resizes them."""
    frame: object = None
    """The engine's memory that the pixels fill; None if they are elsewhere."""

    @property
    def given(self) -> Any:
        """What an engine gets: the frame, the native tile or the pixels; None if the tile could not be read."""
        if self.frame is not None:
            return self.frame
        return self.pixels if self.native is None else self.native


@dataclass(frozen=True)
class TileResult:
    """An engine's outputs for one tile, by name, without the tile axis; None if the tile could not be evaluated."""

    tile: Tile
    outputs: dict[str, NDArray[Any]] | None
    padded_fraction: float = 0.0
    cause: MissingCause = ""

    @property
    def status(self) -> TileStatus:
        """Whether the tile counts."""
        if self.outputs is not None:
            return "ok"
        return "incomplete" if self.cause in INCOMPLETE else "unreadable"


SCORE_STEPS = 1 << 40
"""A tile's score is added up in steps of 2⁻⁴⁰: sums are of whole numbers, so order and device change no bit of them."""


class ScoreSums(NamedTuple):
    """Exact sums over a slide's tiles, in SCORE_STEPS, from which every slide score follows."""

    total: int
    maximum: int
    highest: int
    """Σ of the k highest scores."""
    last: int
    """The lowest of these."""


SumScores = Callable[[NDArray[np.int64], int], ScoreSums]
"""The sums of scores (N,), from 0 to SCORE_STEPS, N ≥ 1, for a k from 1 to N."""


@dataclass(frozen=True)
class TileTable:
    """One row a tile, sorted by (miny, minx); the outputs of tiles that are not ok are NaN.

    minx, miny, width, height: int (N,), l0 pixels · probabilities: float64 (N, K), classes in the card's order ·
    depth_mm: float (N,) or None · status: str (N,) · tissue_fraction, padded_fraction: float (N,) ·
    cause: str (N,), why a tile is not ok, else empty · features (N, F), attention (N, h, w), cam (N, 3, h, w):
    float32 or None.
    """

    classes: tuple[str, ...]
    minx: NDArray[np.int64]
    miny: NDArray[np.int64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    depth_mm: NDArray[np.float64] | None
    status: NDArray[np.str_]
    cause: NDArray[np.str_]
    tissue_fraction: NDArray[np.float64]
    padded_fraction: NDArray[np.float64]
    features: NDArray[Any] | None
    attention: NDArray[Any] | None
    cam: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.minx)


@dataclass(frozen=True)
class EvidenceMap:
    """Evidence of a lesion on a grid of cells that begins at l0 (0, 0).

    values: float32 (h, w), 0–1, NaN where nothing was evaluated · cell_l0: width and height of a cell in l0 pixels ·
    source: "cam" if the model gives maps, else "tile": one cell is then one tile.
    """

    values: NDArray[np.float32]
    cell_l0: tuple[float, float]
    source: Literal["cam", "tile"]


@dataclass(frozen=True)
class SlideView:
    """What pictures of a slide are drawn from.

    thumbnail: uint8 (h, w, 3) at no more than 8 µm/px · px_l0: side of a thumbnail pixel in l0 pixels ·
    tissue, ink, unread: bool (h, w) on the thumbnail.
    """

    thumbnail: NDArray[np.uint8]
    px_l0: float
    tissue: NDArray[np.bool_]
    ink: NDArray[np.bool_]
    unread: NDArray[np.bool_]
    evidence: EvidenceMap


@dataclass(frozen=True)
class GalleryTile:
    """A tile that a person should look at: its row in the tile table, why it was chosen, and its pixels."""

    row: int
    role: Literal["highest-scoring", "hard-negative", "near-threshold"]
    pixels: NDArray[np.uint8]
