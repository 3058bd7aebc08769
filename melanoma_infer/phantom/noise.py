"""Random numbers as a pure function of position, so that any part of a scene can be drawn alone.

Only integers and + − × ÷ √ are used, because sin and exp differ in the last bit between processors, and the same seed
must give the same bytes everywhere.

`wave` is exact and for curves that truth is computed from. `smooth` and `discs` are for pixels: they look values up in
tables of fixed size, which takes a fifth of the time of computing them, and repeat after 32 to 256 cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Axis = NDArray[np.float64]
Cells = NDArray[np.int64]

PAGE_CELLS, CELL_STEPS = 32, 32
PAGE = PAGE_CELLS * CELL_STEPS
WAVE_CELLS, WAVE_STEPS = 64, 512
BRICKS = 256
STEPS_ABOVE_ZERO, BRICKS_ABOVE_ZERO = 1 << 17, 1 << 10
"""Added to coordinates before they are truncated, so that none is negative: multiples of PAGE and of BRICKS."""


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


def wave(u: Axis, key: np.uint32) -> Axis:
    """Smooth noise in [0, 1) along u, in cells: uniform values at whole numbers, t²(3 − 2t) between them."""
    left = np.floor(u)
    column = left.astype(np.int64)
    first = int(column.min())
    values = uniform(np.arange(first, int(column.max()) + 2), np.zeros(1, np.int64), key).astype(np.float64)
    t = u - left
    a, b = values.take(column - first), values.take(column - first + 1)
    eased: Axis = a + (b - a) * (t * t * (3 - 2 * t))
    return eased


def smooth(u: Field, v: Field, key: np.uint32) -> Field:
    """Smooth noise in [0, 1) at each u, v, in cells: the nearest of 32 × 32 steps a cell."""
    column = (u * CELL_STEPS + (STEPS_ABOVE_ZERO + int(key & 1023))).astype(np.int32)
    row = (v * CELL_STEPS + (STEPS_ABOVE_ZERO + int(key >> 10 & 1023))).astype(np.int32)
    column &= PAGE - 1
    row &= PAGE - 1
    row *= PAGE
    row += column
    noise = _page().take(row).astype(np.float32)
    noise *= np.float32(1 / 256)
    return noise


def sway(u: Field, v: Field, key: np.uint32) -> Field:
    """A smooth shift within ±½ at each u, v, in cells: waves along three directions, in steps of 1/512 cell."""
    shift = np.full(np.broadcast_shapes(u.shape, v.shape), np.float32(-1.5))
    for number, along in enumerate((u, v, (u + v) * np.float32(0.7071))):
        first = STEPS_ABOVE_ZERO + int(key >> (7 * number) & 0x7FFF)
        column = (along * WAVE_STEPS + first).astype(np.int32)
        column &= WAVE_CELLS * WAVE_STEPS - 1
        shift += _waves().take(column)
    shift *= np.float32(1 / 3)
    return shift


@dataclass(frozen=True)
class Discs:
    """Discs in a brick pattern, at most one per brick.

    A fraction `share` of the bricks has one, placed randomly within a fraction `jitter` of the free room. Radii are up
    to a fraction `vary` smaller than `radius_um`. With `tilt`, discs are ellipses of random slant.
    """

    pitch_um: float
    radius_um: float
    share: float
    jitter: float = 1.0
    vary: float = 0.3
    tilt: float = 0.0

    @property
    def covered(self) -> float:
        """The mean of `discs`: the part of the area that they cover."""
        # A disc of s times the radius covers π(s² − 1/6) of its square: the soft rim loses the 1/6. s = 1 − vary · t.
        squares = 1 - self.vary + self.vary * self.vary / 3 - 1 / 6
        return float(self.share * 3.141592653589793 * squares * (self.radius_um / self.pitch_um) ** 2)


def discs(x_um: Field, y_um: Field, key: np.uint32, form: Discs) -> Field:
    """1 inside discs, 0 between them, soft at the rim."""
    v = y_um * (1 / form.pitch_um) + BRICKS_ABOVE_ZERO
    row = v.astype(np.int32)
    v -= row
    u = x_um * (1 / form.pitch_um) + BRICKS_ABOVE_ZERO
    u += 0.5 * (row & 1)
    column = u.astype(np.int32)
    u -= column
    column += int(key & 255)
    row += int(key >> 8 & 255)
    column &= BRICKS - 1
    row &= BRICKS - 1
    row *= BRICKS
    row += column
    radius = form.radius_um / form.pitch_um
    room = form.jitter * (0.5 - radius)
    centre_u, centre_v, inside, slant = (table.take(row) for table in _bricks(form.share, form.vary))
    inside *= radius * radius
    u -= 0.5
    u -= centre_u * room
    v -= 0.5
    v -= centre_v * room
    if form.tilt:
        slant *= form.tilt
        slant *= u
        slant *= v
        inside -= slant
    u *= u
    v *= v
    inside -= u
    inside -= v
    inside *= 3 / (radius * radius)
    np.clip(inside, 0, 1, out=inside)
    return inside


@cache
def _page() -> NDArray[np.uint8]:
    """Smooth noise of 32 × 32 cells that continues itself, 32 × 32 steps a cell, flattened."""
    lattice = uniform(np.arange(PAGE_CELLS)[None, :], np.arange(PAGE_CELLS)[:, None], stream(0, 1)).astype(np.float64)
    t = (np.arange(CELL_STEPS) + 0.5) / CELL_STEPS
    eased = t * t * (3 - 2 * t)
    along = lattice[:, :, None] + (np.roll(lattice, -1, 1) - lattice)[:, :, None] * eased
    along = along.reshape(PAGE_CELLS, PAGE)
    down = along[:, None, :] + (np.roll(along, -1, 0) - along)[:, None, :] * eased[:, None]
    return (down.reshape(-1) * 256).astype(np.uint8)


@cache
def _waves() -> Field:
    """Smooth noise along a line of 64 cells that continues itself, 512 steps a cell."""
    u = (np.arange(WAVE_CELLS * WAVE_STEPS) + 0.5) / WAVE_STEPS
    lattice = uniform(np.arange(WAVE_CELLS), np.zeros(1, np.int64), stream(0, 2)).astype(np.float64)
    column = u.astype(np.int64)
    t = u - column
    a, b = lattice.take(column), lattice.take((column + 1) % WAVE_CELLS)
    return (a + (b - a) * (t * t * (3 - 2 * t))).astype(np.float32)


@cache
def _bricks(share: float, vary: float) -> tuple[Field, Field, Field, Field]:
    """For 256 × 256 bricks: the centre's place in the room (x, y: ±1), squared size (−1: no disc), slant (±1)."""
    columns, rows = np.arange(BRICKS)[None, :], np.arange(BRICKS)[:, None]
    x, y, size, present, slant = (uniform(columns, rows, stream(0, use)).ravel() for use in range(10, 15))
    size = 1 - np.float32(vary) * size
    return 2 * x - 1, 2 * y - 1, np.where(present < share, size * size, np.float32(-1)), 2 * slant - 1


def _mixed(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Hashed bits: every input bit flips every output bit with probability ½ (the finaliser `lowbias32`)."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
    return bits ^ (bits >> np.uint32(16))
