"""Random numbers as a pure function of position, so that any part of a scene can be drawn alone.

Only integers and + − × ÷ √ are used, because sin and exp differ in the last bit between processors, and the same seed
must give the same bytes everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Axis = NDArray[np.float64]
Cells = NDArray[np.int64]
Places = NDArray[np.float32] | NDArray[np.float64]


def stream(seed: int, use: int) -> np.uint32:
    """A key for one use of random numbers, independent of the keys for other uses and seeds."""
    words = np.array([seed & 0xFFFFFFFF, use], np.uint32)
    first, second = _mixed(words * np.uint32(0x9E3779B1) + np.uint32(1))
    return np.uint32(first ^ second)


def uniform(column: Cells, row: Cells, key: np.uint32) -> Field:
    """A uniform number in [0, 1) for each lattice point; column and row are broadcast."""
    spread = column.astype(np.uint32) * np.uint32(0x9E3779B1) ^ row.astype(np.uint32) * np.uint32(0x85EBCA77) ^ key
    return (_mixed(spread) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def draws(count: int, key: np.uint32) -> list[float]:
    """`count` uniform numbers in [0, 1)."""
    return [float(value) for value in uniform(np.arange(count), np.zeros(1, np.int64), key)]


def value_noise(u: Places, v: Places, key: np.uint32) -> Field:
    """Smooth noise (h, w) in [0, 1) at u (1, w) and v (h, 1) or (h, w), in lattice cells.

    Lattice points have uniform values; between them t²(3 − 2t) interpolates, along u first.
    """
    left, top = np.floor(u), np.floor(v)
    column, row = as_cells(left), as_cells(top)
    values = uniform(*lattice(column, row, margin=1), key)
    first, below = (column - column.min())[0], row - row.min()
    along = _between(values.take(first, axis=1), values.take(first + 1, axis=1), _eased(u - left))
    down = _eased(v - top)
    if v.shape[1] == 1:
        return _between(along.take(below[:, 0], axis=0), along.take(below[:, 0] + 1, axis=0), down)
    width = along.shape[1]
    at = below * width + np.arange(width)
    return _between(along.take(at), along.take(at + width), down)


def as_cells(floors: Places) -> Cells:
    """Whole numbers that are stored as floats, as int64."""
    return floors.astype(np.int64)


def lattice(column: Cells, row: Cells, *, margin: int = 0) -> tuple[Cells, Cells]:
    """The lattice points that cover these cells, plus a margin: columns (1, w) and rows (h, 1)."""
    columns = np.arange(column.min(), column.max() + 1 + margin)
    rows = np.arange(row.min(), row.max() + 1 + margin)
    return columns[None, :], rows[:, None]


def _between(a: Field, b: Field, share: Field) -> Field:
    """The value a + (b − a) · share, in a single new array, because allocation costs more here than arithmetic."""
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
    """Hashed bits: every input bit flips every output bit with probability ½ (the finaliser `lowbias32`)."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
    return bits ^ (bits >> np.uint32(16))
