"""What every engine offers, and the checks that all of them share.

To add an engine: write a class that fulfils Engine (OneAtATime helps where tiles are computed one by one), give it a
`load` function that raises EngineUnavailableError with the command to install what is missing, and name it in
`engines/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.card import Precision

Outputs = Mapping[str, NDArray[Any]]
"""By name, first axis the tile: probabilities (N, K); where the card names them depth_mm (N,), attention (N, h, w), cam
(N, 3, h, w), features (N, F)."""


@dataclass(frozen=True)
class Numerics:
    """What computed the numbers."""

    engine: str
    version: str
    precision: Precision
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.version} {self.precision} on {self.device}"


class Engine(Protocol):
    """A runtime that has a bundle's graph loaded."""

    @property
    def numerics(self) -> Numerics:
        """What computes the numbers."""
        ...

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), RGB."""
        ...

    @property
    def tiles_at_once(self) -> int:
        """How many tiles `infer_each` has under way, and so how many should lie ready."""
        ...

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs of each tile (tile_px, tile_px, 3), in order, first axis 1. Tiles are taken as needed."""
        ...


class OneAtATime(ABC):
    """`infer_each` of an engine that computes one tile at a time."""

    tiles_at_once = 1

    @abstractmethod
    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), RGB."""

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs of each tile (tile_px, tile_px, 3), in order."""
        return (self.infer(tile[None]) for tile in tiles)


def first_non_finite(outputs: Outputs) -> str | None:
    """The name of an output that holds NaN or infinity, `features` looked at first; None where all are finite."""
    names = sorted(outputs, key=lambda name: (name != "features", name))
    return next((name for name in names if not np.isfinite(outputs[name]).all()), None)
