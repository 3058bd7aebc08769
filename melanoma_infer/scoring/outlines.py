"""Outlines: labelled cells → the border of each label as rings of corners, for all labels at once.

A border consists of sides between a cell and a cell of another label. A side is a step from one corner of the grid to
the next with its own cell on the right: outer rings run clockwise on the screen, holes anticlockwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""The directions (x, y) of a step: right, down, left, up. The next one in the list is a turn to the right."""


def outlines(labels: NDArray[np.int32]) -> list[list[NDArray[np.int64]]]:
    """The rings of labels 1 … n: the outer ring, then the holes from the largest on.

    Args:
        labels: of cells (h, w); 0 is none. Cells of one label are connected by their sides.

    Returns:
        Rings int64 (k, 2): the corners (x, y) at which a border turns, each once, starting with the leftmost (then
        uppermost).
    """
    sides = _Sides.of(labels)
    following = sides.following()
    turns = np.empty(len(following), np.bool_)
    turns[following] = sides.way[following] != sides.way
    rings: list[list[NDArray[np.int64]]] = [[] for _ in range(labels.max(initial=0))]
    corners = np.flatnonzero(turns)
    x, y, label = sides.x[corners], sides.y[corners], sides.label[corners]
    for ring in _cycles(_from_turn_to_turn(following, turns), np.lexsort((y, x, label))):
        rings[label[ring[0]] - 1].append(np.column_stack([x[ring], y[ring]]))
    for holes_too in rings:
        if len(holes_too) > 1:
            holes_too.sort(key=lambda ring: -abs(doubled_area(ring)))
    return rings


def doubled_area(ring: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Twice the area inside a ring of corners (k, 2); negative where it runs anticlockwise on the screen."""
    x, y = (ring - ring[0]).T  # seen from its first corner: small products, and none for the side that closes it
    return float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:]))


@dataclass(frozen=True)
class _Sides:
    """Sides in the order of `place`: their ways, the corners they begin at, and the labels of their cells."""

    way: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    label: NDArray[np.int32]
    shape: tuple[int, int]
    """Rows and columns of corners."""

    @classmethod
    def of(cls, labels: NDArray[np.int32]) -> _Sides:
        around = np.pad(labels, 1)
        height, width = around.shape
        upper = np.flatnonzero(around[:-1] != around[1:])  # the cell above each horizontal side
        left = np.flatnonzero(around[:, :-1] != around[:, 1:])
        left += left // (width - 1)  # the cell left of each vertical side, counted in whole rows
        cells = around.ravel()
        # A side is of its own cell; it begins at the corner above and left of cell (y + 1, x + 1).
        own_and_corner = (
            (upper + width, upper - 1),
            (left, left - width),
            (upper, upper),
            (left + 1, left),
        )
        taken = [cells[own] > 0 for own, _ in own_and_corner]
        corners = [corner[mine] for (_, corner), mine in zip(own_and_corner, taken, strict=True)]
        y, x = np.divmod(np.concatenate(corners), width)
        return cls(
            way=np.repeat(np.arange(4), [len(corner) for corner in corners]),
            x=x,
            y=y,
            label=np.concatenate([cells[own[mine]] for (own, _), mine in zip(own_and_corner, taken, strict=True)]),
            shape=(height - 1, width - 1),
        )

    def following(self) -> NDArray[np.int64]:
        """The side that follows each side.

        Where two cells of a label touch only at a corner, the border turns left. So no ring touches itself: a hole that
        meets the outer border at a corner is a separate ring.
        """
        x, y = self.x + STEPS[self.way, 0], self.y + STEPS[self.way, 1]
        places = self._place(self.way, x=self.x, y=self.y)
        following = np.zeros(len(self.way), np.int64)
        for turn in (1, 0, -1):  # what comes later prevails
            wanted = self._place((self.way + turn) % 4, x=x, y=y)
            found = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
            exists = (places[found] == wanted) & (self.label[found] == self.label)
            following[exists] = found[exists]
        return following

    def _place(self, way: NDArray[np.int64], *, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number of a side; in the order of these the sides are held."""
        return (way * self.shape[0] + y) * self.shape[1] + x


def _from_turn_to_turn(following: NDArray[np.int64], turns: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The permutation among the sides that begin with a turn, numbered by themselves; straight runs are skipped."""
    ahead = np.where(turns, np.arange(len(turns)), following)
    while not turns[ahead].all():
        ahead = ahead[ahead]  # twice as far each time
    numbers = np.cumsum(turns) - 1
    skipped: NDArray[np.int64] = numbers[ahead[following[turns]]]
    return skipped


def _cycles(following: NDArray[np.int64], order: NDArray[np.int64]) -> Iterator[list[int]]:
    """The cycles of a permutation, each from its member that comes first in an order."""
    after, seen = following.tolist(), bytearray(len(following))
    for first in order.tolist():
        cycle, here = [], first
        while not seen[here]:
            seen[here] = True
            cycle.append(here)
            here = after[here]
        if cycle:
            yield cycle
