"""Device functions that kernels share: ReLU and maximum that keep NaN, the attention at a pixel, the classifier.

Compiled code drops NaN in `max.f32`, and Triton's interpreter does not show it; so every maximum here propagates NaN,
and every comparison is written so that NaN takes the branch that keeps it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def relu(value):
    """max(value, 0), and NaN for NaN."""
    return tl.where(value < 0, 0.0, value)


@triton.jit
def larger(left, right):
    """The larger of two values, and NaN where either is NaN."""
    return tl.maximum(left, right, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def largest(values, axis: tl.constexpr):
    """The maximum along an axis, and NaN where any value is NaN."""
    return tl.reduce(values, axis, larger)


@triton.jit
def softmax(logits):
    """exp(logits) / Σ exp(logits) for one vector; −inf gives 0."""
    raised = tl.exp(logits - largest(logits, 0))
    return raised / tl.sum(raised, 0)


@triton.jit
def attention_at(
    average, maximum, weight, bias, pixel, live,
    H: tl.constexpr, W: tl.constexpr, SIZE: tl.constexpr, AVG_FIRST: tl.constexpr,
):  # fmt: skip
    """σ(weight * concat(average, maximum) + bias) at the live pixels; the others are finite and mean nothing.

    average, maximum: a tile's pooled maps, (H·W,). weight: (2, SIZE, SIZE).
    """
    HALF: tl.constexpr = SIZE // 2
    of_average = weight + (0 if AVG_FIRST else SIZE * SIZE)
    of_maximum = weight + (SIZE * SIZE if AVG_FIRST else 0)
    row = pixel // W
    column = pixel % W
    logit = tl.zeros_like(pixel).to(tl.float32)
    for i in tl.static_range(SIZE):
        for j in tl.static_range(SIZE):
            y = row + (i - HALF)
            x = column + (j - HALF)
            inside = live & (y >= 0) & (y < H) & (x >= 0) & (x < W)
            at = y * W + x
            tap = i * SIZE + j
            logit += tl.load(of_average + tap) * tl.load(average + at, mask=inside, other=0.0)
            logit += tl.load(of_maximum + tap) * tl.load(maximum + at, mask=inside, other=0.0)
    return 1 / (1 + tl.exp(-(logit + tl.load(bias))))


@triton.jit
def second_layer(h1, w2, b2, m, F: tl.constexpr):
    """h2 = ReLU(w2·h1 + b2) at the neurons m."""
    weights = tl.load(w2 + m[:, None] * F + tl.arange(0, F)[None, :])
    return relu(tl.sum(weights * h1[None, :], 1) + tl.load(b2 + m))


@triton.jit
def third_weights(w3, m, M: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """w3 at the neurons m, (BLOCK_K, m), 0 beyond the K classes."""
    k = tl.arange(0, BLOCK_K)
    return tl.load(w3 + k[:, None] * M + m[None, :], mask=(k < K)[:, None], other=0.0)


@triton.jit
def logits_of(
    h1, w2, b2, w3, b3,
    F: tl.constexpr, M: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The logits w3·h2 + b3, (BLOCK_K,), −inf beyond the K classes; BLOCK_M neurons at a time, for few registers."""
    k = tl.arange(0, BLOCK_K)
    logits = tl.load(b3 + k, mask=k < K, other=float("-inf"))
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        h2 = second_layer(h1, w2, b2, m, F)
        logits += tl.sum(third_weights(w3, m, M, K, BLOCK_K) * h2[None, :], 1)
    return logits


@triton.jit
def at_logits(logits, groups, j, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """∂L/∂z, (BLOCK_K,), for log-odds L = lse(z + groups[j]) − lse(z + groups[j + 3])."""
    k = tl.arange(0, BLOCK_K)
    favoured = tl.load(groups + j * K + k, mask=k < K, other=0.0)
    others = tl.load(groups + (j + 3) * K + k, mask=k < K, other=0.0)
    return softmax(logits + favoured) - softmax(logits + others)


@triton.jit
def gradient_of(
    logits, h1, w2, b2, w3, groups, j,
    F: tl.constexpr, M: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The gradient u = ∂L/∂h1 of log-odds j, through the ReLU masks, (F,)."""
    slope = at_logits(logits, groups, j, K, BLOCK_K)
    gradient = tl.zeros([BLOCK_M, F], tl.float32)
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        h2 = second_layer(h1, w2, b2, m, F)
        weighed = tl.sum(slope[:, None] * third_weights(w3, m, M, K, BLOCK_K), 0)
        at_h2 = tl.where(h2 <= 0, 0.0, weighed)
        weights = tl.load(w2 + m[:, None] * F + tl.arange(0, F)[None, :])
        gradient += at_h2[:, None] * weights
    # One sum over neurons at the end: it goes through shared memory, with 32-way bank conflicts.
    return tl.where(h1 <= 0, 0.0, tl.sum(gradient, 0))


@triton.jit
def classify(
    features, offset, w2, b2, w3, b3, groups, probabilities, gradients,
    F: tl.constexpr, M: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Write one tile's probabilities (K,) and the gradients of three log-odds by h1, (3, F), from its features (F,).

    Features and gradients pass through memory: a value that derives from a product on the tensor cores, or multiplies
    one, would make the compiler convert whole maps from one register layout to another.
    """
    k = tl.arange(0, BLOCK_K)
    feature = tl.arange(0, F)
    h1 = relu(tl.load(features + feature) + tl.load(offset + feature))
    logits = logits_of(h1, w2, b2, w3, b3, F, M, K, BLOCK_K, BLOCK_M)
    tl.store(probabilities + k, softmax(logits), mask=k < K)
    for j in tl.static_range(3):
        gradient = gradient_of(logits, h1, w2, b2, w3, groups, j, F, M, K, BLOCK_K, BLOCK_M)
        tl.store(gradients + j * F + feature, gradient)
