"""The plane on which tissue is found, while its pixels arrive: sums over blocks, which are the same in any order."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import RectPx, Scale, SizePx
from melanoma_infer.scan.blocks import BlockSums
from melanoma_infer.tiles.block_means import rounded_means, run_lengths
from melanoma_infer.tiles.plane import PLANE_PX_MAX, Plane, plane_block_px

SIDE_AT_FIRST = 256
"""Blocks along each side of the plane of a scan whose size is not known; more when pixels arrive beyond."""
UNBOUNDED = SizePx(1 << 40, 1 << 40)
"""The size of a scan whose size is not known yet: no pixel is at its far edges."""


class PlaneSums:
    """Sums of the scanned pixels over the blocks of the tissue plane.

    Args:
        scale: µm per level-0 pixel.
        size_l0: of the whole scan; None if it is not known yet.
    """

    def __init__(self, scale: Scale, size_l0: SizePx | None) -> None:
        self.block_px = plane_block_px(max(scale.x_um, scale.y_um), size_l0 or SizePx(1, 1))
        self._is_bounded = size_l0 is not None
        height, width = self._shape(size_l0) if size_l0 else (SIDE_AT_FIRST, SIDE_AT_FIRST)
        self._sums = np.zeros((height, width, 3), np.uint32)
        self._arrived = np.zeros((height, width), np.uint32)
        self._used = (0, 0)

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._sums.nbytes + self._arrived.nbytes

    def add(self, part: RectPx, pixels: NDArray[np.uint8]) -> None:
        """Add pixels (h, w, 3) that have not arrived before.

        Raises:
            UsageError: a scan of unknown size is too large for a plane at this scale.
        """
        self._make_room(part)
        sums = BlockSums.of(pixels, part, self.block_px)
        rows, columns = _slices(sums.rect)
        self._sums[rows, columns] += sums.values
        down = run_lengths(part.y % self.block_px, part.height, self.block_px)
        across = run_lengths(part.x % self.block_px, part.width, self.block_px)
        self._arrived[rows, columns] += down[:, None] * across[None, :]

    def contradicts(self, part: RectPx, pixels: NDArray[np.uint8]) -> bool:
        """Whether whole blocks of pixels that arrived again differ from what arrived first."""
        sums = BlockSums.of(pixels, part, self.block_px)
        return not np.array_equal(self._sums[_slices(sums.rect)], sums.values)

    def window(self, window: RectPx, size_l0: SizePx) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A part of the plane, uint8 (h, w, 3), white where pixels are missing, and where none is, bool (h, w).

        Args:
            window: in pixels of the plane.
            size_l0: of the scan, or UNBOUNDED.
        """
        slices = _slices(window)
        arrived, sums = self._arrived[slices], self._sums[slices]
        down, across = (
            np.clip(end - np.arange(start, start + length) * self.block_px, 0, self.block_px)
            for end, start, length in (
                (size_l0.height, window.y, arrived.shape[0]), (size_l0.width, window.x, arrived.shape[1])
            )
        )  # fmt: skip
        known = np.zeros((window.height, window.width), np.bool_)
        rgb = np.full((*known.shape, 3), 255, np.uint8)
        inside = slice(0, arrived.shape[0]), slice(0, arrived.shape[1])
        known[inside] = arrived == down[:, None] * across[None, :]
        rgb[inside] = rounded_means(sums, np.maximum(arrived, 1)[..., None])
        rgb[~known] = 255
        return rgb, known

    def plane(self, size_l0: SizePx) -> Plane:
        """The whole plane of a scan of this size; what is not complete is unread."""
        height, width = self._shape(size_l0)
        rgb, known = self.window(RectPx(0, 0, width, height), size_l0)
        return Plane(rgb, ~known, float(self.block_px))

    def digest(self, size_l0: SizePx, scale: Scale) -> str:
        """SHA-256 over the sums, the size and the scale: the same in whatever parts and order the pixels arrived."""
        height, width = self._shape(size_l0)
        digest = hashlib.sha256(repr((size_l0, scale)).encode())
        for values in (self._sums, self._arrived):
            digest.update(values[:height, :width].astype("<u4", copy=False).tobytes())
        return digest.hexdigest()

    def size(self, size_l0: SizePx) -> SizePx:
        """The size of the plane of a scan of this size."""
        height, width = self._shape(size_l0)
        return SizePx(width, height)

    def _shape(self, size_l0: SizePx) -> tuple[int, int]:
        return -(-size_l0.height // self.block_px), -(-size_l0.width // self.block_px)

    def _make_room(self, part: RectPx) -> None:
        """Let the plane of a scan of unknown size grow."""
        if self._is_bounded:
            return
        used = self._shape(SizePx(part.right, part.bottom))
        self._used = max(used[0], self._used[0]), max(used[1], self._used[1])
        if self._used[0] * self._used[1] > PLANE_PX_MAX:
            raise UsageError(
                f"The scan now reaches {part.right} × {part.bottom} px, and its size was not given. A scan of more "
                f"than {PLANE_PX_MAX * self.block_px**2:,} px needs it: give size_l0 when you open the session."
            )
        old = self._arrived.shape
        shape = [had if now <= had else max(now, 2 * had) for now, had in zip(self._used, old, strict=True)]
        if shape != list(old):
            more = [(0, now - had) for now, had in zip(shape, old, strict=True)]
            self._sums, self._arrived = np.pad(self._sums, [*more, (0, 0)]), np.pad(self._arrived, more)


def _slices(blocks: RectPx) -> tuple[slice, slice]:
    return slice(blocks.y, blocks.bottom), slice(blocks.x, blocks.right)
