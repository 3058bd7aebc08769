"""aggregate_tiles: tile scores → slide scores (mean, maximum, hottest tiles), one segment a slide, without atomics."""

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
    """Unsigned integers in the order of the scores: the sign bit flipped, negative numbers complemented."""
    bits = scores.to(tl.uint32, bitcast=True)
    return bits ^ tl.where(bits >> 31 == 1, 0xFFFFFFFF, 0x80000000).to(tl.uint32)


@triton.jit
def unsorted(keys):
    """The scores that `sortable` turned into these keys."""
    bits = keys ^ tl.where(keys >> 31 == 1, 0x80000000, 0xFFFFFFFF).to(tl.uint32)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def aggregate_tiles_kernel(
    scores, offsets, hottest_tiles, mean, maximum, hottest,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program does one slide. The k-th highest score is found bit by bit, counting what lies at or above each
    candidate; so the result depends on no order, and ties need no rule: equal scores weigh the same together.
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

    asked = tl.load(hottest_tiles + slide)
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

    hotter = tl.zeros([BLOCK], tl.float32)
    number = tl.zeros([BLOCK], tl.int32)
    for start in range(0, count, BLOCK):
        live = start + lane < count
        values = tl.load(segment + start + lane, mask=live, other=0.0)
        keys = sortable(values)
        over = live & (keys > threshold)
        hotter += tl.where(over, values, 0.0)
        number += over.to(tl.int32)
    left = weight - tl.sum(number, 0).to(tl.float32)
    hot = (tl.sum(hotter, 0) + left * unsorted(threshold)) / weight

    # Without tiles mean and hottest are 0 / 0, NaN. A NaN among the scores has no rank, so it is passed on by hand.
    tl.store(mean + slide, average)
    tl.store(maximum + slide, tl.where(count == 0, average, top))
    tl.store(hottest + slide, tl.where(top != top, top, hot))


def plan(scores: Tensor, offsets: Tensor, hottest: Tensor, *, target: Target) -> Planned[Aggregates]:
    """Return the outputs, allocated, and the launch that fills them; arguments as `reference.aggregate_tiles`'.

    scores and hottest are float32; a slide has fewer than 2²⁴ tiles.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    slides = hottest.shape[0]
    check("scores", scores, (scores.numel(),), torch.float32, scores.device)
    check("hottest", hottest, (slides,), torch.float32, scores.device)
    check("offsets", offsets, (slides + 1,), torch.int64, scores.device)
    config = aggregate_config()
    outputs = Aggregates(*(torch.empty_like(hottest) for _ in Aggregates._fields))
    launch = Launch(
        name="aggregate_tiles",
        kernel=aggregate_tiles_kernel,
        grid=(slides, 1, 1),
        arguments={"scores": scores, "offsets": offsets, "hottest_tiles": hottest, **outputs._asdict()},
        stored=Aggregates._fields,
        constants=dict(config.blocks),
        config=config,
    )
    return Planned(outputs, (launch,))
