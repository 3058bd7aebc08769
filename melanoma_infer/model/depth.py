"""The percolation depth module (paper 2.3, Eq. 3): Breslow thickness in mm, from a tile.

tile → 8×8 average → three [convolution → ReLU → max-pool 2], 5×5, 7×7 and 9×9 → mean and maximum over all places →
linear 64 → ReLU → linear 1 → softplus → mm.

Thickness is measured perpendicular to a surface that may run in any direction, so each place has to see both the
surface and the deepest cell: a place of the last map sees 56 averages, 2.6 mm at 5.86 µm/px. Where in the tile that is
does not matter, so places are pooled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melanoma_infer.errors import UsageError

AVERAGE_PX = 8
"""A finer average costs four times as much and was no more accurate."""
CHANNELS = (16, 32, 64)
"""Whatever the width of the backbone: with less, the narrowest networks could not measure, and it costs little."""
KERNELS_PX = (5, 7, 9)
HIDDEN = 64
TILE_STEP_PX = AVERAGE_PX * 2**3
"""tile_px must be a multiple of this, so that every average covers equal blocks and exports as a plain AveragePool."""


class DepthModule(nn.Module):
    """Maps normalised tiles (N, 3, tile_px, tile_px) to a positive depth in mm (N,)."""

    def __init__(self, tile_px: int) -> None:
        """Build the module.

        Raises:
            UsageError: tile_px is not a positive multiple of TILE_STEP_PX (64).
        """
        super().__init__()
        if tile_px <= 0 or tile_px % TILE_STEP_PX:
            raise UsageError(
                f"tile_px is {tile_px}, but the depth module needs a multiple of {TILE_STEP_PX}, because it averages "
                f"over {AVERAGE_PX}×{AVERAGE_PX} px and halves three times. Choose another tile_px."
            )
        self.average = nn.AvgPool2d(AVERAGE_PX)
        sizes = zip((3, *CHANNELS), CHANNELS, KERNELS_PX, strict=False)
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
        """Return the depth in mm, (N,), from averages over 8×8 px (N, 3, tile_px / 8, tile_px / 8)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = self.maxpool(self.relu(conv(x)))
        pooled = torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)
        depth_mm: Tensor = self.softplus(self.out(self.relu(self.hidden(pooled)))).squeeze(1)
        return depth_mm
