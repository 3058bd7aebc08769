"""Launches with more tiles than fit into memory: one program of a far tile is compared with that of the first tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mminfer_kernels.launch import Launch
from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.access import Array
from mminfer_proofs.sanitizer.execution import Far, execute
from mminfer_proofs.sanitizer.storage import arguments_of

FEWEST_TILES = 40_000
"""The tiles of a large slide."""
MOST_PROGRAMS = (2**31 - 1, 65_535, 65_535)
"""Along x, y and z of a grid (CUDA C++ Programming Guide, technical specifications)."""
PAST_32_BITS = 2**32


@dataclass(frozen=True)
class FarTile:
    """A tile whose elements are beyond what 32 bits can count, if a grid can have so many tiles."""

    tile: int
    far: Far
    near: Far
    """The same program of the first tile."""


def far_tile(one: Launch, two: Launch) -> FarTile:
    """The far tile of a launch, from the launches of the same problem with one tile and with two.

    The differences between them belong to one tile: an axis of the grid, and the bytes of some arguments.
    """
    axis = next(axis for axis in range(3) if two.grid[axis] > one.grid[axis])
    sizes = {name: value for name, value in one.arguments.items() if isinstance(value, Tensor)}
    of_a_tile = {name: _bytes(two.arguments[name]) - _bytes(value) for name, value in sizes.items()}
    most = max(_elements(two.arguments[name]) - _elements(value) for name, value in sizes.items())
    tile = min(max(FEWEST_TILES, PAST_32_BITS // most + 1), MOST_PROGRAMS[axis])
    last = [programs - 1 for programs in one.grid]
    last[axis] = 0
    far = [tile if each == axis else index for each, index in enumerate(last)]
    return FarTile(
        tile,
        Far((far[0], far[1], far[2]), {name: tile * size for name, size in of_a_tile.items()}),
        Far((last[0], last[1], last[2])),
    )


def check_far_tile(launch: Launch, ptx: str, shared_bytes: int, place: FarTile) -> None:
    """Raise unless code computes the same for the far tile as for the first.

    Args:
        launch: of one tile.
        ptx: its code.
        shared_bytes: of one CTA.
        place: the far tile.

    Raises:
        KernelFault: memcheck, above all: an offset was computed in 32 bits; or as `execute`.
    """
    arguments = arguments_of(launch)
    far, near = (
        execute(ptx, arguments, launch.grid, shared_bytes, stored=launch.stored, far=each).outputs
        for each in (place.far, place.near)
    )
    _refuse_difference(far, near, place.tile)


def check_far_scores(launch: Launch, ptx: str, shared_bytes: int) -> int:
    """Check aggregate_tiles on a far slide, whose scores are those of a near one, and return its first score's number.

    Raises:
        KernelFault: as `check_far_tile`.
    """
    first = 2 * PAST_32_BITS
    arguments = arguments_of(launch)
    moved = {**arguments, "offsets": np.asarray(arguments["offsets"]) + first}
    slide = (launch.grid[0] - 1, 0, 0)
    near = execute(ptx, arguments, launch.grid, shared_bytes, stored=launch.stored, far=Far(slide))
    there = Far(slide, {"scores": first * np.asarray(arguments["scores"]).itemsize})
    far = execute(ptx, moved, launch.grid, shared_bytes, stored=launch.stored, far=there)
    _refuse_difference(far.outputs, near.outputs, first)
    return first


def _refuse_difference(far: Mapping[str, Array], near: Mapping[str, Array], tile: int) -> None:
    for name in far:
        if far[name].tobytes() != near[name].tobytes():
            raise KernelFault(f"memcheck: {name} of tile {tile:,} differs from {name} of the same pixels as tile 0.")


def _bytes(value: Tensor | int) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _elements(value: Tensor | int) -> int:
    return value.numel() if isinstance(value, Tensor) else 0
