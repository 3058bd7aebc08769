"""How exact a kernel must be: flash-attention's rule (Dao et al.).

The error may be twice that of PyTorch in the same low precision, and a millionth of the largest value for where PyTorch
happens to be exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

TIMES_TORCH = 2
OF_LARGEST = 1e-6


@dataclass(frozen=True)
class Comparison:
    """One output against the truth."""

    error: float
    """The largest absolute difference."""
    allowed: float
    same_nan: bool
    """Whether NaN stands where it stands in the truth, and nowhere else."""

    @property
    def holds(self) -> bool:
        """Whether the output is exact enough."""
        return self.same_nan and self.error <= self.allowed


def compare(result: Tensor, exact: Tensor, torchs: Tensor) -> Comparison:
    """An output against the truth in float64, with what PyTorch computes in the output's precision as a measure."""
    return Comparison(
        error=_largest(result.double() - exact),
        allowed=TIMES_TORCH * _largest(torchs.double() - exact) + OF_LARGEST * _largest(exact),
        same_nan=bool((result.isnan() == exact.isnan()).all()),
    )


def worst(comparisons: Iterable[Comparison]) -> Comparison:
    """The one that is furthest beyond its bound, or nearest to it."""
    return max(comparisons, key=lambda each: (not each.holds, each.error / (each.allowed or 1.0)))


def _largest(values: Tensor) -> float:
    return float(values.nan_to_num().abs().max()) if values.numel() else 0.0
