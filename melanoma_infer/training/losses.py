"""The joint loss: cross-entropy over classes, and smooth L1 over thicknesses that are known."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def class_loss(logits: Tensor, allowed: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of −log Σ p over the classes that each tile may have.

    With one class it is cross-entropy. Where only "malignant" is known, the sum is over the malignant classes: its
    gradient keeps their ratio, so a tile without follow-up says nothing about the outcome.

    Args:
        logits: (N, K).
        allowed: bool (N, K), at least one a row.
        weights: (K,), of the classes; a tile's weight is the mean over its classes.
    """
    log_p = functional.log_softmax(logits, 1).masked_fill(~allowed, float("-inf")).logsumexp(1)
    share = allowed.to(logits.dtype)
    weight = (share * weights).sum(1) / share.sum(1)
    return -(weight * log_p).sum() / weight.sum()


def map_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of each place, the mean over places where it is known what they show (not NaN); 0 if none is.

    Args:
        logits: (N, h, w), of showing a lesion.
        shares: (N, h, w), the share of each place that shows one.
    """
    known = ~shares.isnan()
    if not known.any():
        return logits.sum() * 0
    return functional.binary_cross_entropy_with_logits(logits[known], shares[known])


def depth_loss(depth_mm: Tensor, known_mm: Tensor, smooth_mm: float) -> Tensor:
    """Smooth L1 of depths (N,) in mm, the mean over tiles whose thickness is known (not NaN); 0 if none is.

    |e| − smooth_mm / 2 from an error e of smooth_mm on, e² / (2 smooth_mm) below.
    """
    counts = ~known_mm.isnan()
    if not counts.any():
        return depth_mm.sum() * 0
    return functional.smooth_l1_loss(depth_mm[counts], known_mm[counts], beta=smooth_mm)
