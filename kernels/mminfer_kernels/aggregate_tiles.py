"""aggregate_tiles: sums of tile scores for slide scores, exact, without atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.inputs import check
from mminfer_kernels.launch import Launch, Planned, Target, aggregate_config
from mminfer_kernels.reference import SCORE_BITS, Aggregates

TILES_MAX = 2 ** (63 - SCORE_BITS)
"""So many scores cannot overflow a sum."""


@triton.jit
def aggregate_tiles_kernel(
    scores, offsets, ranks, total, maximum, highest, last,
    BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program computes one slide. The k-th highest score is found bit by bit, by counting the scores that are not
    below each candidate. Sums are of whole numbers, so the result depends neither on the tiles' order nor on BLOCK.
    """
    slide = tl.program_id(0)
    first = tl.load(offsets + slide)
    count = (tl.load(offsets + slide + 1) - first).to(tl.int32)
    segment = scores + first
    lane = tl.arange(0, BLOCK)

    sums = tl.zeros([BLOCK], tl.int64)
    most = tl.zeros([BLOCK], tl.int64)
    for start in range(0, count, BLOCK):
        values = tl.load(segment + start + lane, mask=start + lane < count, other=0)
        sums += values
        most = tl.maximum(most, values)

    rank = tl.minimum(tl.load(ranks + slide), count.to(tl.int64)).to(tl.int32)
    threshold = tl.full([], 0, tl.int64)
    for bit in tl.static_range(BITS):
        candidate = threshold | (1 << (BITS - 1 - bit))
        not_below = tl.zeros([BLOCK], tl.int32)
        for start in range(0, count, BLOCK):
            live = start + lane < count
            values = tl.load(segment + start + lane, mask=live, other=0)
            not_below += (live & (values >= candidate)).to(tl.int32)
        threshold = tl.where(tl.sum(not_below, 0) >= rank, candidate, threshold)

    above = tl.zeros([BLOCK], tl.int64)
    number = tl.zeros([BLOCK], tl.int32)
    for start in range(0, count, BLOCK):
        live = start + lane < count
        values = tl.load(segment + start + lane, mask=live, other=0)
        over = live & (values > threshold)
        above += tl.where(over, values, 0)
        number += over.to(tl.int32)

    # Without tiles every candidate has enough scores.
    kth = tl.where(count == 0, 0, threshold)
    tl.store(total + slide, tl.sum(sums, 0))
    tl.store(maximum + slide, tl.max(most, 0))
    tl.store(highest + slide, tl.sum(above, 0) + (rank - tl.sum(number, 0)).to(tl.int64) * kth)
    tl.store(last + slide, kth)


def plan(scores: Tensor, offsets: Tensor, ranks: Tensor, *, target: Target) -> Planned[Aggregates]:
    """Return the outputs, not written yet, and the launch that writes them; arguments as in the reference.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the reference's, or there are TILES_MAX scores.
    """
    slides = ranks.shape[0]
    check("scores", scores, (scores.numel(),), torch.int64, scores.device)
    check("ranks", ranks, (slides,), torch.int64, scores.device)
    check("offsets", offsets, (slides + 1,), torch.int64, scores.device)
    if scores.numel() >= TILES_MAX:
        raise KernelInputError(f"scores are {scores.numel():,}: give fewer than {TILES_MAX:,}, or a sum may overflow.")
    config = aggregate_config()
    outputs = Aggregates(*(torch.empty_like(ranks) for _ in Aggregates._fields))
    launch = Launch(
        name="aggregate_tiles",
        kernel=aggregate_tiles_kernel,
        grid=(slides, 1, 1),
        arguments={"scores": scores, "offsets": offsets, "ranks": ranks, **outputs._asdict()},
        stored=Aggregates._fields,
        constants={"BITS": SCORE_BITS, **config.blocks},
        config=config,
    )
    return Planned(outputs, (launch,))
