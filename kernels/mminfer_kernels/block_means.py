"""block_means: means of square blocks of pixels, rounded half up: the first step of `reduce-bilinear`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.inputs import check_pixels
from mminfer_kernels.launch import Launch, Planned, Target, block_means_config

SIDE_MAX = 2048
"""(2 · 255 + 1) · 2048², the largest sum of a block, is below 2³¹."""


@triton.jit(do_not_specialize=("height", "width"))
def block_means_kernel(
    tiles, means, height, width,
    SIDE: tl.constexpr, PIXEL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program computes BLOCK consecutive bytes of one tile's means; each byte of the tile is read by one thread.

    height, width: of the means.
    """
    tile = tl.program_id(1).to(tl.int64)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = height * width * PIXEL
    live = value < values
    row = value // (width * PIXEL)
    column = value // PIXEL % width
    pitch = width * SIDE * PIXEL
    pixel = tiles + tile * (height * SIDE * pitch) + row * (SIDE * pitch) + column * (SIDE * PIXEL) + value % PIXEL

    total = tl.zeros([BLOCK], tl.int32)
    for i in range(SIDE):
        for j in range(SIDE):
            total += tl.load(pixel + i * pitch + j * PIXEL, mask=live, other=0).to(tl.int32)

    mean = (2 * total + SIDE * SIDE) // (2 * SIDE * SIDE)
    tl.store(means + tile * values + value, mean.to(tl.uint8), mask=live)


def plan(tiles: Tensor, side: int, *, target: Target) -> Planned[Tensor]:
    """Return the means, not written yet, and the launch that writes them; arguments as in the reference.

    tiles are contiguous, each below 2³¹ bytes; side is at most 2048.

    Raises:
        KernelInputError: a shape, dtype or layout differs from the above.
    """
    batch, height, width, pixel = check_pixels(tiles)
    if not 1 <= side <= SIDE_MAX or height % side or width % side:
        raise KernelInputError(
            f"Blocks of side {side} do not cover tiles of {height} × {width} pixels: give a divisor of both sides, "
            f"1 to {SIDE_MAX}."
        )
    config = block_means_config()
    rows, columns = height // side, width // side
    means = torch.empty(batch, rows, columns, pixel, dtype=torch.uint8, device=tiles.device)
    launch = Launch(
        name="block_means",
        kernel=block_means_kernel,
        grid=(triton.cdiv(rows * columns * pixel, config.blocks["BLOCK"]), batch, 1),
        arguments={"tiles": tiles, "means": means, "height": rows, "width": columns},
        stored=("means",),
        constants={"SIDE": side, "PIXEL": pixel, **config.blocks},
        config=config,
    )
    return Planned(means, (launch,))
