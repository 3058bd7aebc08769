"""attention_pool: Eq. 1 and 2, then global average pooling; the attended map is never written."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels import attention_map, channel_pool
from mminfer_kernels.inputs import check_map
from mminfer_kernels.launch import Launch, Planned, Target, weigh_config
from mminfer_kernels.reference import Order, Pooled


@triton.jit
def attention_pool_kernel(
    x, attention, pooled,
    C: tl.constexpr, P: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program does BLOCK_C channels of one tile, over all pixels."""
    tile = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < C
    x_tile = x + tile * (C * P)

    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(0, P, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        live = pixel < P
        heat = tl.load(attention + tile * P + pixel, mask=live, other=0.0)
        values = tl.load(x_tile + pixel[:, None] * C + channel[None, :], mask=live[:, None] & there[None, :], other=0.0)
        total += values.to(tl.float32) * heat[:, None]

    mean = tl.sum(total, 0) / P
    tl.store(pooled + tile * C + channel, mean.to(pooled.dtype.element_ty), mask=there)


def plan(x: Tensor, weight: Tensor, bias: Tensor, order: Order = "avg-max", *, target: Target) -> Planned[Pooled]:
    """Return the outputs, allocated, and the three launches that fill them; arguments as `reference.attention_pool`'s.

    x is channels-last, float16, bfloat16 or float32; weight and bias are float32. The attention is float32.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    shape = check_map(x, weight, bias)
    config = weigh_config(x.dtype, shape)
    pooled_maps = weight.new_empty(shape.batch, 2, shape.pixels)
    outputs = Pooled(
        pooled=x.new_empty(shape.batch, shape.channels),
        attention=weight.new_empty(shape.batch, shape.height, shape.width),
    )
    pool = Launch(
        name="attention_pool",
        kernel=attention_pool_kernel,
        grid=(triton.cdiv(shape.channels, config.blocks["BLOCK_C"]), shape.batch, 1),
        arguments={"x": x, "attention": outputs.attention, "pooled": outputs.pooled},
        stored=("pooled",),
        constants={"C": shape.channels, "P": shape.pixels, **config.blocks},
        config=config,
    )
    attend = attention_map.launch(pooled_maps, weight, bias, outputs.attention, shape, order)
    return Planned(outputs, (channel_pool.launch(x, pooled_maps, shape), attend, pool))
