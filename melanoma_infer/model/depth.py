"""The percolation depth module (paper 2.3, Eq. 3): Breslow thickness in mm, from a tile.

tile → 4×4 averages → their mean and how far the darkest lies below it, over 2×2 → three [convolution → ReLU →
max-pool 2], 5×5, 7×7 and 9×9 → mean and maximum over all places → linear 64 → ReLU → linear 1 → softplus → mm.

Thickness is measured perpendicular to a surface that may run in any direction, so each place has to see both the
surface and the deepest cell: a place of the last map sees 448 px, 2.6 mm at 5.86 µm/px. The deepest cells are a few in
a block of 8×8 px: its mean hardly shows them, and what is dark in it does. Where in the tile that is does not matter,
so places are pooled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melanoma_infer.card import NETWORK_STEP_PX
from melanoma_infer.errors import UsageError

AVERAGE_PX = 4
BLOCK = 2
"""Averages on a side of a block. Convolutions over the averages themselves cost four times as much for no more."""
DARK_GAIN = 3.0
"""Brings what is dark in a block to the range of its mean."""
CHANNELS = (16, 32, 64)
"""Whatever the width of the backbone: with less, the narrowest networks could not measure, and it costs little."""
KERNELS_PX = (5, 7, 9)
HIDDEN = 64


def averages_of(tiles: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return what `DepthModule.of_averages` takes, from tiles that are not normalised: (Σ / (255·4²) − mean) / std.

    Sums of bytes are exact, and no map of the tiles' own size is made.

    Args:
        tiles: uint8, (N, H, W, 3), contiguous; H and W are multiples of 4.
        mean: (3,).
        std: (3,), above 0.

    Returns:
        (N, 3, H / 4, W / 4), in channels-last memory and the dtype of `mean`.
    """
    batch, height, width, _ = tiles.shape
    blocks = tiles.reshape(batch, height // AVERAGE_PX, AVERAGE_PX, width // AVERAGE_PX, AVERAGE_PX, 3)
    total = blocks.sum((2, 4), dtype=torch.int32).to(mean.dtype).permute(0, 3, 1, 2)
    return (total / (255 * AVERAGE_PX**2) - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)


class DepthModule(nn.Module):
    """Maps normalised tiles (N, 3, tile_px, tile_px) to a positive depth in mm (N,)."""

    def __init__(self, tile_px: int) -> None:
        """Build the module.

        Raises:
            UsageError: tile_px is not a positive multiple of NETWORK_STEP_PX (64).
        """
        super().__init__()
        if tile_px <= 0 or tile_px % NETWORK_STEP_PX:
            raise UsageError(
                f"tile_px is {tile_px}, but the depth module needs a multiple of {NETWORK_STEP_PX}, because it "
                f"averages over {AVERAGE_PX}×{AVERAGE_PX} px and halves four times. Choose another tile_px."
            )
        self.average = nn.AvgPool2d(AVERAGE_PX)
        self.block_mean, self.block_max = nn.AvgPool2d(BLOCK), nn.MaxPool2d(BLOCK)
        sizes = zip((2 * 3, *CHANNELS), CHANNELS, KERNELS_PX, strict=False)
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(taken, given, kernel, padding=kernel // 2) for taken, given, kernel in sizes
        )
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(2 * CHANNELS[-1], HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)
        self.softplus = nn.Softplus()

    def forward(self, images: Tensor) -> Tensor:
        """Return the depth in mm, (N,)."""
        return self.of_averages(self.average(images))

    def of_averages(self, x: Tensor) -> Tensor:
        """Return the depth in mm, (N,), from averages over 4×4 px (N, 3, tile_px / 4, tile_px / 4)."""
        mean = self.block_mean(x)
        x = torch.cat((mean, DARK_GAIN * (mean + self.block_max(-x))), 1)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = self.maxpool(self.relu(conv(x)))
        pooled = torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)
        depth_mm: Tensor = self.softplus(self.out(self.relu(self.hidden(pooled)))).squeeze(1)
        return depth_mm
