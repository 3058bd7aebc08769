"""resize_tiles: tiles as the model takes them from tiles as the slide has them, with the bytes of Pillow's resize."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.inputs import check, check_pixels, check_resampling
from mminfer_kernels.launch import Launch, Planned, Target, resize_config
from mminfer_kernels.reference import WEIGHT_BITS, Resampling

TAPS_MAX = 32
"""The kernel keeps all weights across in registers, 4 for each tap: 168 are used with 32 taps, 128 of them weights."""
BITS = tl.constexpr(WEIGHT_BITS)
HALF = tl.constexpr(1 << WEIGHT_BITS - 1)


@triton.jit(do_not_specialize=("height", "width"))
def resize_tiles_kernel(
    tiles, x_first, x_weight, x_of, y_first, y_weight, y_of, images, height, width,
    PIXEL: tl.constexpr, OUT: tl.constexpr, TAPS_X: tl.constexpr, TAPS_Y: tl.constexpr,
    BLOCK_X: tl.constexpr, BLOCK_Y: tl.constexpr,
):  # fmt: skip
    """One program computes BLOCK_Y rows of one image, BLOCK_X consecutive bytes of each: (x, channel) in memory order.

    It goes down the tile's rows that its own rows need. Each is resized across in registers, rounded to 8 bits, and
    added to the sums of all BLOCK_Y rows, so nothing passes through memory between the two passes. Its neighbours above
    and below compute the rows at the border again.
    """
    tile = tl.program_id(2).to(tl.int64)
    value = tl.program_id(0) * BLOCK_X + tl.arange(0, BLOCK_X)
    row = tl.program_id(1) * BLOCK_Y + tl.arange(0, BLOCK_Y)
    x = tl.minimum(value // 3, OUT - 1)  # lanes beyond the image do its last pixel again: no load needs a mask
    y = tl.minimum(row, OUT - 1)

    across = tl.load(x_of + tile)
    first = tl.load(x_first + across * OUT + x)
    source = tiles + tile * (height * width * PIXEL) + first * PIXEL + value % 3
    weights = ()
    for tap in tl.static_range(TAPS_X):
        weights += (tl.load(x_weight + (across * TAPS_X + tap) * OUT + x),)  # type: ignore[assignment]
    down = tl.load(y_of + tile)
    top = tl.load(y_first + down * OUT + y)
    start = tl.load(y_first + down * OUT + tl.program_id(1) * BLOCK_Y)
    stop = tl.load(y_first + down * OUT + tl.minimum(tl.program_id(1) * BLOCK_Y + BLOCK_Y, OUT) - 1) + TAPS_Y
    total = tl.full([BLOCK_Y, BLOCK_X], HALF, tl.int32)
    for line in range(start, stop):
        pixel = source + line * (width * PIXEL)
        level = tl.full([BLOCK_X], HALF, tl.int32)
        for tap in tl.static_range(TAPS_X):
            level += tl.load(pixel + tap * PIXEL).to(tl.int32) * weights[tap]
        of_line = line - top  # the line's tap for each row
        inside = (of_line >= 0) & (of_line < TAPS_Y)
        weight = tl.load(y_weight + (down * TAPS_Y + of_line) * OUT + y, mask=inside, other=0)
        total += (level >> BITS)[None, :] * weight[:, None]

    image = images + tile * (OUT * OUT * 3) + row[:, None] * (OUT * 3) + value[None, :]
    tl.store(image, (total >> BITS).to(tl.uint8), mask=(row < OUT)[:, None] & (value < OUT * 3)[None, :])


def plan(
    tiles: Tensor, across: Resampling, down: Resampling, *, target: Target, images: Tensor | None = None
) -> Planned[Tensor]:
    """Return the images, not written yet, and the launch that writes them; arguments as in the reference.

    tiles are contiguous, each below 2³¹ bytes, and hold every pixel that the resampling names, which nothing checks.

    Args:
        tiles: uint8 (N, H, W, 3 or 4).
        across: from `resampling.resampling`, moved to the tiles' device.
        down: the same for the other axis.
        target: what the kernel is compiled for.
        images: uint8 (N, out, out, 3), contiguous, which is written to; None for new memory.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    batch, height, width, pixel = check_pixels(tiles)
    out, device = across.first.shape[-1], tiles.device
    for axis, resampling in (("across", across), ("down", down)):
        check_resampling(axis, resampling, batch, out, device)
    if images is None:
        images = torch.empty(batch, out, out, 3, dtype=torch.uint8, device=device)
    check("images", images, (batch, out, out, 3), torch.uint8, device)
    taps_x, taps_y = across.weight.shape[1], down.weight.shape[1]
    if taps_x > min(width, TAPS_MAX) or taps_y > min(height, TAPS_MAX):
        raise KernelInputError(
            f"Each pixel needs {taps_y} × {taps_x} pixels of tiles of {height} × {width}: at most {TAPS_MAX} a side "
            "are possible. Reduce the tiles by block means first."
        )
    config = resize_config(out)
    launch = Launch(
        name="resize_tiles",
        kernel=resize_tiles_kernel,
        grid=(triton.cdiv(3 * out, config.blocks["BLOCK_X"]), triton.cdiv(out, config.blocks["BLOCK_Y"]), batch),
        arguments={
            "tiles": tiles,
            **{f"x_{name}": tensor for name, tensor in across._asdict().items()},
            **{f"y_{name}": tensor for name, tensor in down._asdict().items()},
            "images": images, "height": height, "width": width,
        },
        stored=("images",),
        constants={"PIXEL": pixel, "OUT": out, "TAPS_X": taps_x, "TAPS_Y": taps_y, **config.blocks},
        config=config,
    )  # fmt: skip
    return Planned(images, (launch,))
