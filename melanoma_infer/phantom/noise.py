"""Chance as a pure function of position, so that any part of a scene can be drawn alone.

Only + − × ÷ √ and integers: sin and exp differ in the last bit between processors, and the same seed must give the
same bytes everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Axis = NDArray[np.float64]
Cells = NDArray[np.int64]
Places = NDArray[np.float32] | NDArray[np.float64]


def stream(seed: int, use: int) -> np.uint32:
    """A key for one use of chance, unrelated to those of other uses and seeds."""
    words = np.array([seed & 0xFFFFFFFF, use], np.uint32)
    first, second = _mixed(words * np.uint32(0x9E3779B1) + np.uint32(1))
    return np.uint32(first ^ second)


def chance(column: Cells, row: Cells, key: np.uint32) -> Field:
    """Uniform numbers in [0, 1), one for each lattice point; column and row are broadcast."""
    spread = column.astype(np.uint32) * np.uint32(0x9E3779B1) ^ row.astype(np.uint32) * np.uint32(0x85EBCA77) ^ key
    return (_mixed(spread) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def draws(count: int, key: np.uint32) -> list[float]:
    """`count` uniform numbers in [0, 1)."""
    return [float(value) for value in chance(np.arange(count), np.zeros(1, np.int64), key)]


def value_noise(u: Places, v: Places, key: np.uint32) -> Field:
    """Smooth noise (h, w) in [0, 1) at positions in lattice cells: u (1, w), v (h, 1) or (h, w).

    Lattice points have uniform values; between them these are joined by t²(3 − 2t), along u first.
    """
    left, top = np.floor(u), np.floor(v)
    column, row = as_cells(left), as_cells(top)
    values = chance(*lattice(column, row, margin=1), key)
    first, below = (column - column.min())[0], row - row.min()
    along = _between(values.take(first, axis=1), values.take(first + 1, axis=1), _eased(u - left))
    down = _eased(v - top)
    if v.shape[1] == 1:
        return _between(along.take(below[:, 0], axis=0), along.take(below[:, 0] + 1, axis=0), down)
    width = along.shape[1]
    at = below * width + np.arange(width)
    return _between(along.take(at), along.take(at + width), down)


def as_cells(floors: Places) -> Cells:
    """Whole numbers as integers."""
    return floors.astype(np.int64)


def lattice(column: Cells, row: Cells, *, margin: int = 0) -> tuple[Cells, Cells]:
    """The lattice points that cover these cells: columns (1, w) and rows (h, 1)."""
    columns = np.arange(column.min(), column.max() + 1 + margin)
    rows = np.arange(row.min(), row.max() + 1 + margin)
    return columns[None, :], rows[:, None]


def _between(a: Field, b: Field, share: Field) -> Field:
    """The value a + (b − a) · share, in one new array: fresh memory costs more here than arithmetic."""
    mixed = b - a
    mixed *= share
    mixed += a
    return mixed


def _eased(t: Places) -> Field:
    """t²(3 − 2t)."""
    t32 = t.astype(np.float32, copy=False)
    eased = t32 * np.float32(-2)
    eased += 3
    eased *= t32
    eased *= t32
    return eased


def _mixed(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Every input bit changes every output bit half of the time (the finaliser `lowbias32`)."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
    return bits ^ (bits >> np.uint32(16))
