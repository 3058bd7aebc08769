"""Which pixels have arrived: runs of rows that share the same intervals of columns, so that memory stays small."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from melanoma_infer.geometry import RectPx

Intervals = tuple[tuple[int, int], ...]
"""Disjoint (left, right), ascending; the right ends are exclusive."""


class Coverage:
    """The area that has arrived. A strip costs one run of rows, however wide; neighbouring equal runs become one."""

    def __init__(self) -> None:
        self._tops: list[int] = [0]
        """Where runs begin; each ends where the next one begins, and the last one is empty."""
        self._runs: list[Intervals] = [()]
        self.area = 0
        """Pixels that have arrived."""

    @property
    def runs(self) -> int:
        """The number of runs of rows in memory."""
        return len(self._runs)

    def add(self, rect: RectPx) -> tuple[list[RectPx], list[RectPx]]:
        """Add a rectangle; the parts of it that are new, and those that had arrived before."""
        new: list[RectPx] = []
        known: list[RectPx] = []
        if not rect.area:
            return new, known
        first, last = self._split(rect.y), self._split(rect.bottom)
        for at in range(first, last):
            top, height = self._tops[at], self._tops[at + 1] - self._tops[at]
            inside = [(max(a, rect.x), min(b, rect.right)) for a, b in self._runs[at] if a < rect.right and b > rect.x]
            known += [RectPx(a, top, b - a, height) for a, b in inside]
            edges = [rect.x, *(edge for pair in inside for edge in pair), rect.right]
            gaps = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
            new += [RectPx(a, top, b - a, height) for a, b in gaps]
            self._runs[at] = _joined((*self._runs[at], *gaps))
        self.area += sum(part.area for part in new)
        self._merge(first, last)
        return new, known

    def _split(self, y: int) -> int:
        """The number of the run that begins at row y; one is split if none does."""
        at = bisect_left(self._tops, y)
        if at == len(self._tops) or self._tops[at] != y:
            self._tops.insert(at, y)
            self._runs.insert(at, self._runs[at - 1])
        return at

    def _merge(self, first: int, last: int) -> None:
        """Join runs from `first` to `last` with equal ones before them."""
        for at in range(min(last, len(self._runs) - 1), max(first, 1) - 1, -1):
            if self._runs[at] == self._runs[at - 1]:
                del self._runs[at], self._tops[at]

    def covers(self, rect: RectPx) -> bool:
        """Whether all of a rectangle has arrived."""
        first, last = bisect_right(self._tops, rect.y) - 1, bisect_left(self._tops, rect.bottom)
        return all(any(a <= rect.x and rect.right <= b for a, b in run) for run in self._runs[first:last])


def _joined(intervals: Intervals) -> Intervals:
    """The same columns in disjoint intervals that do not touch."""
    joined: list[tuple[int, int]] = []
    for a, b in sorted(intervals):
        if joined and a <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(b, joined[-1][1]))
        else:
            joined.append((a, b))
    return tuple(joined)
