"""Pillow's bilinear weights as integers: which input pixels make an output pixel, and how much of each.

An axis of which `start` to `stop` becomes `out` pixels (libImaging/Resample.c; the first three are float32, the rest is
float64):

    scale = (stop − start) / out;  support = max(scale, 1);  centre = start + (x + 0.5)·scale
    first = ⌊centre − support + 0.5⌋, at least 0;  last = ⌊centre + support + 0.5⌋, at most the size
    w_i = max(0, 1 − |i − centre + 0.5| / support), divided by their sum;  weight_i = ⌊0.5 + w_i · 2²²⌋
    out[x] = (2²¹ + Σ_i weight_i · in[i]) >> 22

The weights of an output pixel add up to 2²² within a few units, so no sum exceeds 31 bits and no result 255.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.reference import WEIGHT_BITS, Resampling


@dataclass(frozen=True)
class Span:
    """The part of an axis that is resized, in pixels."""

    size: int
    """Pixels that the axis has."""
    start: float
    stop: float
    """Not above size."""


@dataclass(frozen=True)
class Weights:
    """Output pixel x is the sum of weight[x, t] · input[first[x] + t], shifted right by 22 bits."""

    first: NDArray[np.int64]
    """(out,), never falling."""
    weight: NDArray[np.int32]
    """(out, taps); every window of `taps` pixels is inside the axis."""


def resampling(spans: Sequence[Span], out: int) -> Resampling:
    """The resampling of one axis for a batch of tiles, on the CPU; tiles with the same span share their weights.

    Args:
        spans: one for each tile.
        out: pixels of the axis after the resize.

    Raises:
        KernelInputError: an axis has fewer pixels than another one's windows.
    """
    kinds = list(dict.fromkeys(spans))
    tables = [weights_of(span, out) for span in kinds]
    taps = max((table.weight.shape[1] for table in tables), default=1)
    fitted = [_with_taps(table, taps, span.size) for table, span in zip(tables, kinds, strict=True)]
    first = np.array([each.first for each in fitted], np.int32).reshape(len(kinds), out)
    weight = np.array([each.weight.T for each in fitted], np.int32).reshape(len(kinds), taps, out)
    numbers = {span: number for number, span in enumerate(kinds)}
    of = torch.tensor([numbers[span] for span in spans], dtype=torch.int32)
    return Resampling(torch.from_numpy(first), torch.from_numpy(weight), of)


@lru_cache(maxsize=4096)
def weights_of(span: Span, out: int) -> Weights:
    """Pillow's weights for one axis, with as many taps as the widest output pixel needs.

    A slide has as many spans as its grid has columns and rows if its downsample is not an integer, otherwise one.
    """
    start, length = float(np.float32(span.start)), float(np.float32(span.stop) - np.float32(span.start))
    scale = length / out
    support = max(scale, 1.0)
    centre = start + (np.arange(out) + 0.5) * scale
    first = np.maximum(np.trunc(centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum(np.trunc(centre + support + 0.5).astype(np.int64), span.size)
    tap = np.arange(2 * math.ceil(support) + 1)
    # In Pillow's order of operations: the last bit of a weight depends on it.
    distance = np.abs((tap + first[:, None] - centre[:, None] + 0.5) * (1.0 / support))
    share = np.where((distance < 1.0) & (tap < (last - first)[:, None]), 1.0 - distance, 0.0)
    total = np.zeros(out)
    for column in share.T:  # one after another: np.sum adds in pairs
        total += column
    share /= np.where(total == 0, 1.0, total)[:, None]
    weight = (0.5 + share * (1 << WEIGHT_BITS)).astype(np.int32)
    used = weight != 0
    lead, end = used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)
    taps = min(int((end - lead).max()), span.size)
    return _with_taps(Weights(first + lead, _moved(weight, lead, taps)), taps, span.size)


def _with_taps(weights: Weights, taps: int, size: int) -> Weights:
    """The same weights in windows of `taps` pixels, moved back where they would reach beyond the axis."""
    if taps > size:
        raise KernelInputError(f"An axis of {size} pixels is shorter than the {taps} that another tile's axis needs.")
    first = np.minimum(weights.first, size - taps)
    return Weights(first, _moved(weights.weight, first - weights.first, taps))


def _moved(weight: NDArray[np.int32], by: NDArray[np.int64], taps: int) -> NDArray[np.int32]:
    """Column t + by[x] of each row x as its column t, zero where there is none: (out, taps)."""
    column = np.arange(taps) + by[:, None]
    inside = (column >= 0) & (column < weight.shape[1])
    taken = np.take_along_axis(weight, np.clip(column, 0, weight.shape[1] - 1), 1)
    moved: NDArray[np.int32] = np.where(inside, taken, 0).astype(np.int32)
    return moved
