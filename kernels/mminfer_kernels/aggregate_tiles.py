"""aggregate_tiles: slide scores (mean, maximum, top-area mean) from tile scores, without atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.device import larger, largest
from mminfer_kernels.inputs import check
from mminfer_kernels.launch import Launch, Planned, Target, aggregate_config
from mminfer_kernels.reference import Aggregates


@triton.jit
def sortable(scores):
    """Unsigned integers that sort like the scores: the sign bit is flipped, negative numbers are complemented."""
    bits = scores.to(tl.uint32, bitcast=True)
    return bits ^ tl.where(bits >> 31 == 1, 0xFFFFFFFF, 0x80000000).to(tl.uint32)


@triton.jit
def unsorted(keys):
    """The scores that `sortable` turned into these keys."""
    bits = keys ^ tl.where(keys >> 31 == 1, 0x80000000, 0xFFFFFFFF).to(tl.uint32)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def aggregate_tiles_kernel(
    scores, offsets, top_tiles, mean, maximum, top_area,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program computes one slide. The k-th highest score is found bit by bit, by counting the scores that are not
    below each candidate. So the result does not depend on the tiles' order, and ties need no rule.
    """
    slide = tl.program_id(0)
    first = tl.load(offsets + slide)
    count = (tl.load(offsets + slide + 1) - first).to(tl.int32)
    segment = scores + first
    lane = tl.arange(0, BLOCK)

    total = tl.zeros([BLOCK], tl.float32)
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, count, BLOCK):
        live = start + lane < count
        values = tl.load(segment + start + lane, mask=live, other=0.0)
        total += values
        most = larger(most, tl.where(live, values, float("-inf")))
    average = tl.sum(total, 0) / count.to(tl.float32)
    top = largest(most, 0)

    asked = tl.load(top_tiles + slide)
    weight = tl.where(asked > count, count.to(tl.float32), asked)
    rank = tl.ceil(weight).to(tl.int32)
    threshold = tl.full([], 0, tl.uint32)
    for bit in tl.static_range(32):
        candidate = threshold | (1 << (31 - bit))
        above = tl.zeros([BLOCK], tl.int32)
        for start in range(0, count, BLOCK):
            live = start + lane < count
            keys = sortable(tl.load(segment + start + lane, mask=live, other=0.0))
            above += (live & (keys >= candidate)).to(tl.int32)
        threshold = tl.where(tl.sum(above, 0) >= rank, candidate, threshold)

    above_threshold = tl.zeros([BLOCK], tl.float32)
    number = tl.zeros([BLOCK], tl.int32)
    for start in range(0, count, BLOCK):
        live = start + lane < count
        values = tl.load(segment + start + lane, mask=live, other=0.0)
        keys = sortable(values)
        over = live & (keys > threshold)
        above_threshold += tl.where(over, values, 0.0)
        number += over.to(tl.int32)
    left = weight - tl.sum(number, 0).to(tl.float32)
    top_mean = (tl.sum(above_threshold, 0) + left * unsorted(threshold)) / weight

    # Without tiles the means are 0 / 0, NaN. A NaN among the scores has no rank, so it is passed on explicitly.
    tl.store(mean + slide, average)
    tl.store(maximum + slide, tl.where(count == 0, average, top))
    tl.store(top_area + slide, tl.where(top != top, top, top_mean))


def plan(scores: Tensor, offsets: Tensor, top_tiles: Tensor, *, target: Target) -> Planned[Aggregates]:
    """Return the outputs, not written yet, and the launch that writes them; arguments as in the reference.

    scores and top_tiles are float32; a slide has fewer than 2²⁴ tiles.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    slides = top_tiles.shape[0]
    check("scores", scores, (scores.numel(),), torch.float32, scores.device)
    check("top_tiles", top_tiles, (slides,), torch.float32, scores.device)
    check("offsets", offsets, (slides + 1,), torch.int64, scores.device)
    config = aggregate_config()
    outputs = Aggregates(*(torch.empty_like(top_tiles) for _ in Aggregates._fields))
    launch = Launch(
        name="aggregate_tiles",
        kernel=aggregate_tiles_kernel,
        grid=(slides, 1, 1),
        arguments={"scores": scores, "offsets": offsets, "top_tiles": top_tiles, **outputs._asdict()},
        stored=Aggregates._fields,
        constants=dict(config.blocks),
        config=config,
    )
    return Planned(outputs, (launch,))
