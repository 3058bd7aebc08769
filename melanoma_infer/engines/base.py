"""The interface of every engine, and the check of their outputs.

To add an engine: write a class that implements Engine (inherit from OneAtATime if it computes tiles one by one), add a
`load` function that raises EngineUnavailableError with the command that installs what is missing, and list the module
in `engines/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.frames import Frames
from melanoma_infer.records import NativeTile, ScoreSums
from melanoma_infer.tolerances import Precision

Outputs = Mapping[str, NDArray[Any]]
"""Arrays by name; the first axis is the tile. Always probabilities (N, K), and those of depth_mm (N,), attention
(N, h, w), cam (N, 3, h, w) and features (N, F) that the card lists."""

Tell = Callable[[str], None]
"""Takes what a user should know at once: why the loading of an engine will take minutes."""


@dataclass(frozen=True)
class Numerics:
    """The engine, version, precision and device that computed a result."""

    engine: str
    version: str
    precision: Precision
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.version} {self.precision} on {self.device}"


class Engine(Protocol):
    """A runtime with a bundle's graph loaded."""

    @property
    def numerics(self) -> Numerics:
        """What this engine computes with."""
        ...

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), RGB."""
        ...

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes in use, ascending, each with its own program; (1,) if tiles are computed one by one."""
        ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What runs other than it should, without changing a number; known after every batch size has run once."""
        ...

    @property
    def tiles_at_once(self) -> int:
        """How many tiles `infer_each` has in progress, and so how many should be prefetched."""
        ...

    def infer_each(self, tiles: Iterable[Any]) -> Iterator[Outputs]:
        """The outputs for each tile, in order, as many tiles at a time as are computed together.

        Args:
            tiles: uint8 (tile_px, tile_px, 3), or frames of `frames_of`; a ResizingEngine takes NativeTiles as well.
                They are taken as needed.
        """
        ...


class ResizingEngine(Engine, Protocol):
    """An engine whose `infer_each` takes native tiles, too, and resizes them on its device."""

    def resized(self, tile: NativeTile) -> NDArray[np.uint8]:
        """A native tile as the network gets it: uint8 (tile_px, tile_px, 3)."""
        ...


def frames_of(engine: Engine) -> Frames | None:
    """The memory to write an engine's tiles into; None if it computes from any."""
    return getattr(engine, "frames", None)


def resizing(engine: Engine) -> ResizingEngine | None:
    """The engine, if it resizes."""
    return cast(ResizingEngine, engine) if hasattr(engine, "resized") else None


class SummingEngine(Engine, Protocol):
    """An engine that adds up tiles' scores on its device."""

    def score_sums(self, steps: NDArray[np.int64], count: int) -> ScoreSums:
        """As SumScores; any thread may call it."""
        ...


def summing(engine: Engine) -> SummingEngine | None:
    """The engine, if it adds up scores."""
    return cast(SummingEngine, engine) if hasattr(engine, "score_sums") else None


class OneAtATime(ABC):
    """Base of an engine that computes one tile at a time; it provides `infer_each`."""

    buckets = (1,)
    remarks: tuple[str, ...] = ()
    tiles_at_once = 1

    @abstractmethod
    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), RGB."""

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs for each tile (tile_px, tile_px, 3), in order."""
        return (self.infer(tile[None]) for tile in tiles)


def finite_tiles(outputs: Outputs) -> NDArray[np.bool_]:
    """Which tiles (N,) have no NaN and no infinity in any output."""
    each = [np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in outputs.values()]
    finite: NDArray[np.bool_] = np.logical_and.reduce(each)
    return finite


def first_non_finite(outputs: Outputs) -> str | None:
    """The name of an output that contains NaN or infinity, `features` checked first; None if all are finite."""
    names = sorted(outputs, key=lambda name: (name != "features", name))
    return next((name for name in names if not np.isfinite(outputs[name]).all()), None)
