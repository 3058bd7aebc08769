"""channel_pool: a map's channel mean and maximum, which Eq. 1 convolves; the first launch of spatial_attention."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.device import larger, largest
from mminfer_kernels.inputs import MapShape
from mminfer_kernels.launch import Launch, pool_config


@triton.jit
def channel_pool_kernel(
    x, pooled_maps,
    C: tl.constexpr, P: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program computes BLOCK_P pixels of one tile, over all channels."""
    tile = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < P
    channel = tl.arange(0, BLOCK_C)
    x_at = x + tile * (C * P) + pixel[:, None] * C + channel[None, :]

    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    maximum = tl.full([BLOCK_P, BLOCK_C], float("-inf"), tl.float32)
    for start in range(0, C, BLOCK_C):
        there = start + channel[None, :] < C
        values = tl.load(x_at, mask=live[:, None] & there, other=0.0).to(tl.float32)
        total += values
        maximum = larger(maximum, tl.where(there, values, float("-inf")))
        x_at += BLOCK_C

    maps = pooled_maps + tile * (2 * P)
    tl.store(maps + pixel, tl.sum(total, 1) / C, mask=live)
    tl.store(maps + P + pixel, largest(maximum, 1), mask=live)


def launch(x: Tensor, pooled_maps: Tensor, shape: MapShape) -> Launch:
    """Return the launch that writes pooled_maps, float32 (N, 2, P): mean, then maximum."""
    config = pool_config(x.dtype, shape.channels)
    return Launch(
        name="channel_pool",
        kernel=channel_pool_kernel,
        grid=(triton.cdiv(shape.pixels, config.blocks["BLOCK_P"]), shape.batch, 1),
        arguments={"x": x, "pooled_maps": pooled_maps},
        stored=("pooled_maps",),
        constants={"C": shape.channels, "P": shape.pixels, **config.blocks},
        config=config,
    )
