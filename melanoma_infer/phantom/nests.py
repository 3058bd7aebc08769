"""Nests and cells on a lattice: tilted ovals, at most one to a brick, where two curves leave room for them.

Which bricks hold one is a function of position, so pixels are looked up and truth lists the same ovals exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.phantom.noise import uniform
from melanoma_infer.phantom.skin import Curve

NUCLEUS = 0.42
"""Squared radius of a single cell's nucleus, as a share of the cell's."""


@dataclass(frozen=True, eq=False)
class Ovals:
    """Ovals x² + k·x·y + y² ≤ radius² around their centres, in strip coordinates (µm)."""

    s_um: Curve
    d_um: Curve
    radius_um: Curve
    tilt: Curve

    @property
    def half_height_um(self) -> Curve:
        """How far each reaches above and below its centre."""
        half: Curve = self.radius_um / np.sqrt(1 - self.tilt * self.tilt / 4)
        return half


@dataclass(frozen=True, eq=False)
class Lattice:
    """Ovals between an upper and a lower curve (d at each µm of s).

    A fraction `share[0]` of the bricks at the upper curve has one and `share[1]` at the lower, which it may touch.
    Radii are those of `radius_um`, from the upper to the lower curve, less up to a third.
    """

    key: np.uint32
    pitch_um: float
    radius_um: tuple[float, float]
    share: tuple[float, float]
    upper: Curve
    lower: Curve
    tilt: float = 1.0
    single: bool = False
    """Whether each oval is one cell."""

    @property
    def span_um(self) -> tuple[float, float, float, float] | None:
        """Bounds of what it can draw: s from, s to, d from, d to; None where the curves leave no room."""
        room = np.flatnonzero(self.lower > self.upper)
        if not len(room):
            return None
        part = slice(int(room[0]), int(room[-1]) + 1)
        open_ = self.lower[part] > self.upper[part]
        return (
            room[0] - self.pitch_um,
            room[-1] + self.pitch_um,
            float(self.upper[part][open_].min()),
            float(self.lower[part][open_].max()),
        )

    def ovals(self) -> Ovals:
        """All its ovals."""
        span = self.span_um
        if span is None:
            none = np.empty(0)
            return Ovals(none, none, none, none)
        first, last, high, low = (np.floor(um / self.pitch_um) for um in span)
        rows = np.arange(high, low + 2)[:, None]
        s, d, radius2, tilt = self._bricks(np.arange(first, last + 3)[None, :], rows)
        there = radius2 > 0
        return Ovals(s[there], d[there], np.sqrt(radius2[there]), np.broadcast_to(tilt, there.shape)[there])

    def inside(self, s_um: NDArray[np.float32], d_um: NDArray[np.float32]) -> NDArray[np.uint8]:
        """2 near the centre of an oval (NUCLEUS of its squared radius), 1 in the rest of it, 0 outside."""
        if not s_um.size:
            return np.zeros(s_um.shape, np.uint8)
        row = np.floor(d_um * (1 / self.pitch_um)).astype(np.int32)
        above = int(row.min())
        rows = np.arange(above, int(row.max()) + 1, dtype=np.float64)[:, None]
        shifts = self._shifts(rows).astype(np.float32).ravel()
        column = np.floor(s_um * (1 / self.pitch_um) + shifts.take(row - above)).astype(np.int32)
        left = int(column.min())
        columns = np.arange(left, int(column.max()) + 1, dtype=np.float64)[None, :]
        tables = self._bricks(columns, rows)
        at = (row - above) * columns.size + (column - left)
        centre_s, centre_d, radius2, tilt = (
            np.broadcast_to(table, (rows.size, columns.size)).astype(np.float32).take(at) for table in tables
        )
        x, y = s_um - centre_s, d_um - centre_d
        away = x * x + tilt * x * y + y * y
        inside: NDArray[np.uint8] = (away <= radius2).astype(np.uint8)
        inside += away <= radius2 * np.float32(NUCLEUS)
        return inside

    def _shifts(self, rows: Curve) -> Curve:
        """How far each row of bricks (h, 1) is shifted, in bricks: at random, so that ovals form no pattern."""
        return uniform(np.zeros((1, 1), np.int64), rows.astype(np.int64), self.key ^ np.uint32(7 << 8)).astype(
            np.float64
        )

    def _bricks(self, columns: Curve, rows: Curve) -> tuple[Curve, Curve, Curve, Curve]:
        """Centre s and d, squared radius (−1 without an oval) and tilt of these bricks, (h, w)."""
        at = columns.astype(np.int64), rows.astype(np.int64)
        present, x, y, size, slant = (uniform(*at, self.key ^ np.uint32(i << 8)).astype(np.float64) for i in range(5))
        tilt = self.tilt * (2 * slant - 1)
        tall = 1 / np.sqrt(1 - tilt * tilt / 4)
        largest = max(self.radius_um)
        room = np.maximum(0.5 * self.pitch_um - largest * tall, 0)
        s = (columns + 0.5 - self._shifts(rows)) * self.pitch_um + (2 * x - 1) * room
        d = (rows + 0.5) * self.pitch_um + (2 * y - 1) * room
        column = np.clip(s, 0, len(self.upper) - 1).astype(np.int64)
        upper, lower = self.upper.take(column), self.lower.take(column)
        down = np.clip((d - upper) / np.maximum(lower - upper, 1), 0, 1)
        radius = (self.radius_um[0] + (self.radius_um[1] - self.radius_um[0]) * down) * (1 - size / 3)
        half = radius * tall
        here = present < self.share[0] + (self.share[1] - self.share[0]) * down
        here &= (d - half >= upper) & (d + half <= lower) & (s >= 0) & (s < len(self.upper))
        return s, d, np.where(here, radius * radius, -1), tilt


def lower_ends(ovals: Ovals, length: int) -> Curve:
    """The lowest d of the ovals at the middle of each µm of s, −∞ without one."""
    lowest = np.full(length, -np.inf)
    if not len(ovals.s_um):
        return lowest
    reach = int(np.ceil(ovals.half_height_um.max())) + 1
    column = np.floor(ovals.s_um)[:, None] + np.arange(-reach, reach + 1)
    x = column + 0.5 - ovals.s_um[:, None]
    k, r = ovals.tilt[:, None], ovals.radius_um[:, None]
    root = k * k * x * x - 4 * (x * x - r * r)
    ends = np.where(root >= 0, ovals.d_um[:, None] + (np.sqrt(np.maximum(root, 0)) - k * x) / 2, -np.inf)
    there = (root >= 0) & (column >= 0) & (column < length)
    np.maximum.at(lowest, column[there].astype(np.int64), ends[there])
    return lowest
