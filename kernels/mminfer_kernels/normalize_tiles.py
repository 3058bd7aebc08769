"""normalize_tiles: normalised maps, in the backbone's layout and dtype, from uint8 tiles as they are uploaded."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.inputs import DTYPES, check
from mminfer_kernels.launch import Launch, Planned, Target, normalize_config


@triton.jit
def normalize_tiles_kernel(
    tiles, mean, std, images,
    VALUES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program computes BLOCK consecutive bytes of one tile. (H, W, 3) is the memory order of the input and of the
    channels-last result, so both are accessed in order.
    """
    tile = tl.program_id(1).to(tl.int64)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = value < VALUES
    channel = value % 3

    level = tl.load(tiles + tile * VALUES + value, mask=live, other=0).to(tl.float32)
    first = channel == 0
    second = channel == 1
    centre = tl.where(first, tl.load(mean), tl.where(second, tl.load(mean + 1), tl.load(mean + 2)))
    spread = tl.where(first, tl.load(std), tl.where(second, tl.load(std + 1), tl.load(std + 2)))
    normalised = (level / 255 - centre) / spread

    tl.store(images + tile * VALUES + value, normalised.to(images.dtype.element_ty), mask=live)


def plan(tiles: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype, *, target: Target) -> Planned[Tensor]:
    """Return the images, not written yet, and the launch that writes them; arguments as in the reference.

    tiles are contiguous; mean and std are float32; dtype is float16, bfloat16 or float32.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    if tiles.dim() != 4 or dtype not in DTYPES:
        raise KernelInputError(
            f"tiles are {tuple(tiles.shape)} and dtype is {dtype}: give (N, H, W, 3) and a float type."
        )
    batch, height, width, _ = tiles.shape
    check("tiles", tiles, (batch, height, width, 3), torch.uint8, tiles.device)
    check("mean", mean, (3,), torch.float32, tiles.device)
    check("std", std, (3,), torch.float32, tiles.device)
    images = torch.empty(batch, 3, height, width, dtype=dtype, device=tiles.device, memory_format=torch.channels_last)
    config, values = normalize_config(), height * width * 3
    launch = Launch(
        name="normalize_tiles",
        kernel=normalize_tiles_kernel,
        grid=(triton.cdiv(values, config.blocks["BLOCK"]), batch, 1),
        arguments={"tiles": tiles, "mean": mean, "std": std, "images": images},
        stored=("images",),
        constants={"VALUES": values, **config.blocks},
        config=config,
    )
    return Planned(images, (launch,))
