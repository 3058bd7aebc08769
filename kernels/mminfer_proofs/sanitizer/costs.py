"""The cost of accesses: 32-byte sectors of global memory, and wavefronts (passes through the banks of shared memory).

The bank model is the programming guide's: 32 banks of 4 bytes; a warp's access takes as many wavefronts as the busiest
bank has different words. It has not been compared with a GPU's counters.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECTOR = 32
BANKS = 32
BANK_BYTES = 4


@dataclass
class Costs:
    """Totals of one launch; those of global memory are by argument."""

    loaded_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Distinct bytes of each instruction; a byte that several threads of a CTA load at once counts once."""
    stored_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sectors: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Sectors that each warp accesses in each instruction."""
    ideal_sectors: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Sectors that the same warps' distinct bytes would fill."""
    wavefronts: int = 0
    ideal_wavefronts: int = 0
    """Wavefronts that the same warps' distinct words would need if spread over all banks."""
    disagreements: int = 0
    """Stores to shared memory whose threads gave one address values that differ by rounding only."""

    def count_global(self, name: str, places: NDArray[Any], width: int, warps: NDArray[Any], *, stored: bool) -> None:
        """Count one instruction's accesses, at element indices `places` of `width` bytes."""
        elements = np.unique(warps << 40 | places)
        sectors = np.unique(elements >> 40 << 40 | (elements & (1 << 40) - 1) * width // SECTOR)
        in_warp = np.bincount(elements >> 40)
        self.sectors[name] += sectors.size
        self.ideal_sectors[name] += int((-(-in_warp * width // SECTOR)).sum())
        kind = self.stored_bytes if stored else self.loaded_bytes
        kind[name] += np.unique(places).size * width

    def count_shared(self, wavefronts: tuple[int, int]) -> None:
        """Count one instruction's wavefronts, real and ideal."""
        self.wavefronts += wavefronts[0]
        self.ideal_wavefronts += wavefronts[1]


def wavefronts(addresses: NDArray[Any], width: int, groups: NDArray[Any]) -> tuple[int, int]:
    """The wavefronts, real and ideal, of accesses to shared memory.

    Args:
        addresses: (n,), in bytes.
        width: bytes per thread.
        groups: (n,), the number of the warp, or of the matrix of ldmatrix, that each access belongs to.
    """
    steps = np.arange(0, max(width, BANK_BYTES), BANK_BYTES)
    words = np.unique((groups[:, None] << 32 | (addresses[:, None] + steps) // BANK_BYTES).ravel())
    group, bank = words >> 32, words % BANKS
    busy = np.bincount(group * BANKS + bank).reshape(-1) if words.size else np.zeros(0, np.int64)
    padded = np.zeros(-(-busy.size // BANKS) * BANKS, np.int64)
    padded[: busy.size] = busy
    return int(padded.reshape(-1, BANKS).max(axis=1).sum()), int((-(-np.bincount(group) // BANKS)).sum())
