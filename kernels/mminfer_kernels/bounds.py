"""How exact a kernel must be: the rule of flash-attention (Dao et al.).

The error may be twice that of PyTorch in the same low precision, plus a millionth of the largest value, because PyTorch
is sometimes exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

TIMES_TORCH = 2
OF_LARGEST = 1e-6


@dataclass(frozen=True)
class Comparison:
    """One output compared with the truth."""

    error: float
    """The largest absolute difference."""
    allowed: float
    same_nan: bool
    """Whether NaN is where the truth has NaN, and nowhere else."""

    @property
    def holds(self) -> bool:
        """Whether the output is exact enough."""
        return self.same_nan and self.error <= self.allowed


def compare(result: Tensor, exact: Tensor, torchs: Tensor) -> Comparison:
    """Compare an output with the truth in float64; PyTorch's own result in low precision sets the allowed error.

    Whole numbers must be equal.
    """
    if not result.is_floating_point():
        return Comparison(_largest(result.long() - exact.long()), 0.0, same_nan=True)
    return Comparison(
        error=_largest(result.double() - exact),
        allowed=TIMES_TORCH * _largest(torchs.double() - exact) + OF_LARGEST * _largest(exact),
        same_nan=bool((result.isnan() == exact.isnan()).all()),
    )


def worst(comparisons: Iterable[Comparison]) -> Comparison:
    """The comparison that exceeds its bound most, or comes nearest to it."""
    return max(comparisons, key=lambda each: (not each.holds, each.error / (each.allowed or 1.0)))


def _largest(values: Tensor) -> float:
    return float(values.nan_to_num().abs().max()) if values.numel() else 0.0
