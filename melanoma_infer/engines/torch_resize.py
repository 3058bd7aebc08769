"""Native tiles → tiles, on a device of PyTorch's, by the kernels block_means and resize_tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from melanoma_infer.records import NativeTile
from mminfer_kernels import block_means, resize_tiles
from mminfer_kernels.launch import Target
from mminfer_kernels.reference import Resampling
from mminfer_kernels.resampling import Span, resampling


class TorchResize:
    """Uploads and resizes native tiles on the current stream; its one buffer is used again in the stream's order.

    Args:
        device: where the kernels run.
        target: what they are compiled for.
        pin: gives a tensor's content in page-locked memory; the tensor itself where there is none.
    """

    def __init__(
        self, device: torch.device, target: Target, pin: Callable[[Tensor], Tensor] = Tensor.pin_memory
    ) -> None:
        self._device, self._target, self._pin = device, target, pin
        self._buffer = torch.empty(0, dtype=torch.uint8, device=device)

    def __call__(self, tiles: Sequence[NativeTile], images: Tensor) -> None:
        """Write the tiles, all of one shape, to `images`, uint8 (N, tile_px, tile_px, 3), contiguous.

        Raises:
            KernelInputError: a tile is reduced by more than the kernel takes.
        """
        first = tiles[0]
        shape = (len(tiles), *first.pixels.shape)
        if self._buffer.numel() < math.prod(shape):
            self._buffer = torch.empty(math.prod(shape), dtype=torch.uint8, device=self._device)
        pixels = self._buffer[: math.prod(shape)].view(shape)
        for row, tile in zip(pixels, tiles, strict=True):
            row.copy_(torch.from_numpy(tile.pixels), non_blocking=True)
        if first.block_px > 1:
            pixels = block_means.plan(pixels, first.block_px, target=self._target).run()
        across = [Span(tile.size[1], tile.box[0], tile.box[2]) for tile in tiles]
        down = [Span(tile.size[0], tile.box[1], tile.box[3]) for tile in tiles]
        axes = [self._there(resampling(spans, first.tile_px)) for spans in (across, down)]
        resize_tiles.plan(pixels, *axes, target=self._target, images=images).run()

    def _there(self, axis: Resampling) -> Resampling:
        return Resampling(*(self._pin(part).to(self._device, non_blocking=True) for part in axis))
