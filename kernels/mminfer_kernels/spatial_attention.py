"""spatial_attention: Eq. 1 and 2 as the paper writes them; the attended map is written."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels import channel_pool
from mminfer_kernels.device import attention_at
from mminfer_kernels.inputs import check_map
from mminfer_kernels.launch import Launch, Planned, Target, attend_config
from mminfer_kernels.reference import Attended, Order


@triton.jit
def spatial_attention_kernel(
    x, pooled_maps, weight, bias, attended, attention,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, SIZE: tl.constexpr, AVG_FIRST: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program computes BLOCK_P pixels of one tile: their attention once, then all channels."""
    P: tl.constexpr = H * W
    tile = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < P
    channel = tl.arange(0, BLOCK_C)

    maps = pooled_maps + tile * (2 * P)
    heat = attention_at(maps, maps + P, weight, bias, pixel, live, H, W, SIZE, AVG_FIRST)
    tl.store(attention + tile * P + pixel, heat, mask=live)

    at = tile * (C * P) + pixel[:, None] * C + channel[None, :]
    for start in range(0, C, BLOCK_C):
        mask = live[:, None] & (start + channel[None, :] < C)
        values = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(attended + at, (values * heat[:, None]).to(attended.dtype.element_ty), mask=mask)
        at += BLOCK_C


def plan(x: Tensor, weight: Tensor, bias: Tensor, order: Order = "avg-max", *, target: Target) -> Planned[Attended]:
    """Return the outputs, not written yet, and the two launches that write them; arguments as in the reference.

    x is channels-last, float16, bfloat16 or float32; weight and bias are float32. The attention is float32.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    shape = check_map(x, weight, bias)
    config = attend_config(x.dtype, shape.channels)
    pooled_maps = weight.new_empty(shape.batch, 2, shape.pixels)
    outputs = Attended(
        attended=torch.empty_like(x, memory_format=torch.channels_last),
        attention=weight.new_empty(shape.batch, shape.height, shape.width),
    )
    attend = Launch(
        name="spatial_attention",
        kernel=spatial_attention_kernel,
        grid=(triton.cdiv(shape.pixels, config.blocks["BLOCK_P"]), shape.batch, 1),
        arguments={"x": x, "pooled_maps": pooled_maps, "weight": weight, "bias": bias, **outputs._asdict()},
        stored=Attended._fields,
        constants={**shape.constants(order), **config.blocks},
        config=config,
    )
    return Planned(outputs, (channel_pool.launch(x, pooled_maps, shape), attend))
