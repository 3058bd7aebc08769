"""The percolation depth module (paper 2.3, Eq. 3): Breslow thickness in mm, from a tile.

tile → 4×4 average → three [conv 3×3 → ReLU → max-pool 2] → average to 8×8 → flatten → linear 64 → ReLU → linear 1 →
softplus → mm. The 8×8 grid is flattened, not averaged: depth depends on position, so position must be kept.
"""

from __future__ import annotations

from torch import Tensor, nn

from melanoma_infer.errors import UsageError

GRID = 8
HIDDEN = 64
AVERAGE_PX = 4
TILE_STEP_PX = AVERAGE_PX * 2**3 * GRID
"""tile_px must be a multiple of this, so that every average covers equal blocks and exports as a plain AveragePool."""


def depth_channels(width: int) -> tuple[int, int, int]:
    """Channels of the three convolutions: 16, 32, 64 at width 64, proportional to the width, at least 2, 4, 8."""
    first = max(width // 4, 2)
    return first, 2 * first, 4 * first


class DepthModule(nn.Module):
    """Maps normalised tiles (N, 3, tile_px, tile_px) to a positive depth in mm (N,)."""

    def __init__(self, tile_px: int, width: int = 64) -> None:
        """Build the module.

        Raises:
            UsageError: tile_px is not a positive multiple of TILE_STEP_PX (256).
        """
        super().__init__()
        if tile_px <= 0 or tile_px % TILE_STEP_PX:
            raise UsageError(
                f"tile_px is {tile_px}, but the depth module needs a multiple of {TILE_STEP_PX}, because its last grid "
                f"is {GRID}×{GRID}. Choose another tile_px."
            )
        channels = depth_channels(width)
        self.average = nn.AvgPool2d(AVERAGE_PX)
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.conv3 = nn.Conv2d(channels[1], channels[2], 3, padding=1)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.grid = nn.AvgPool2d(tile_px // TILE_STEP_PX)
        self.hidden = nn.Linear(channels[2] * GRID * GRID, HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)
        self.softplus = nn.Softplus()

    def forward(self, images: Tensor) -> Tensor:
        """Return the depth in mm, (N,)."""
        x = self.average(images)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = self.maxpool(self.relu(conv(x)))
        hidden = self.relu(self.hidden(self.grid(x).flatten(1)))
        depth_mm: Tensor = self.softplus(self.out(hidden)).squeeze(1)
        return depth_mm
