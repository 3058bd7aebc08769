"""attention_map: attention (Eq. 1) from the pooled maps, where the last step needs all of a tile's attention."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.device import attention_at
from mminfer_kernels.inputs import MapShape
from mminfer_kernels.launch import Launch, map_config
from mminfer_kernels.reference import Order


@triton.jit
def attention_map_kernel(
    pooled_maps, weight, bias, attention,
    H: tl.constexpr, W: tl.constexpr, SIZE: tl.constexpr, AVG_FIRST: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program does BLOCK_P pixels of one tile, one a thread."""
    P: tl.constexpr = H * W
    tile = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < P
    maps = pooled_maps + tile * (2 * P)

    heat = attention_at(maps, maps + P, weight, bias, pixel, live, H, W, SIZE, AVG_FIRST)

    tl.store(attention + tile * P + pixel, heat, mask=live)


def launch(
    pooled_maps: Tensor, weight: Tensor, bias: Tensor, attention: Tensor, shape: MapShape, order: Order
) -> Launch:
    """The launch that fills attention, float32 (N, h, w), from pooled_maps, float32 (N, 2, P)."""
    config = map_config()
    constants = shape.constants(order)
    del constants["C"]
    return Launch(
        name="attention_map",
        kernel=attention_map_kernel,
        grid=(triton.cdiv(shape.pixels, config.blocks["BLOCK_P"]), shape.batch, 1),
        arguments={"pooled_maps": pooled_maps, "weight": weight, "bias": bias, "attention": attention},
        stored=("attention",),
        constants={**constants, **config.blocks},
        config=config,
    )
