"""attention_tail: all outputs behind the backbone, in one launch that reads x once and writes nothing of its size."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.device import attention_at, classify, larger, largest
from mminfer_kernels.inputs import check, check_classifier, check_map
from mminfer_kernels.launch import Launch, Planned, Target, tail_config
from mminfer_kernels.reference import Classifier, Order, Tail


@triton.jit
def attention_tail_kernel(
    x, weight, bias, w1_image, depth_mm, w1_depth, offset, w2, b2, w3, b3, groups,
    pooled_maps, gradients, probabilities, attention, cam, features,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, SIZE: tl.constexpr, AVG_FIRST: tl.constexpr,
    F: tl.constexpr, M: tl.constexpr, K: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One program computes one tile: the projection y of all its pixels stays in registers until the maps are
    written.
    """
    P: tl.constexpr = H * W
    tile = tl.program_id(0).to(tl.int64)
    pixel = tl.arange(0, BLOCK_P)
    live = pixel < P
    channel = tl.arange(0, BLOCK_C)
    feature = tl.arange(0, F)
    x_tile = x + tile * (C * P)
    x_at = pixel[:, None] * C + channel[None, :]
    w_at = feature[None, :] * C + channel[:, None]

    y = tl.zeros([BLOCK_P, F], tl.float32)
    total = tl.zeros([BLOCK_P], tl.float32)
    maximum = tl.full([BLOCK_P], float("-inf"), tl.float32)
    for start in range(0, C, BLOCK_C):
        if C % BLOCK_C == 0:
            values = tl.load(x_tile + start + x_at, mask=live[:, None], other=0.0)
            weights = tl.load(w1_image + start + w_at)
            candidates = values.to(tl.float32)
        else:
            there = start + channel < C
            values = tl.load(x_tile + start + x_at, mask=live[:, None] & there[None, :], other=0.0)
            weights = tl.load(w1_image + start + w_at, mask=there[:, None], other=0.0)
            candidates = tl.where(there[None, :], values.to(tl.float32), float("-inf"))
        y = tl.dot(values, weights, y, input_precision="ieee")
        total += tl.sum(values.to(tl.float32), 1)
        maximum = larger(maximum, largest(candidates, 1))

    # The convolution needs the pooled values of other threads' pixels: 8·P bytes of global memory, which L1 keeps.
    maps = pooled_maps + tile * (2 * P)
    tl.store(maps + pixel, total / C, mask=live)
    tl.store(maps + P + pixel, maximum, mask=live)
    tl.debug_barrier()
    heat = attention_at(maps, maps + P, weight, bias, pixel, live, H, W, SIZE, AVG_FIRST)
    tl.store(attention + tile * P + pixel, heat, mask=live)

    image = tl.sum(y * heat[:, None], 0) / P
    values = image + tl.load(w1_depth + feature) * tl.load(depth_mm + tile)
    tl.store(features + tile * F + feature, values)
    tl.debug_barrier()
    classify(
        features + tile * F, offset, w2, b2, w3, b3, groups, probabilities + tile * K, gradients + tile * (3 * F),
        F, M, K, BLOCK_K, BLOCK_M,
    )  # fmt: skip
    tl.debug_barrier()

    for j in tl.static_range(3):
        gradient = tl.load(gradients + (tile * 3 + j) * F + feature)
        tl.store(cam + (tile * 3 + j) * P + pixel, heat * tl.sum(y * gradient[None, :], 1) / P, mask=live)


def plan(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    w1_image: Tensor,
    classifier: Classifier,
    order: Order = "avg-max",
    *,
    target: Target,
) -> Planned[Tail]:
    """Return the outputs, not written yet, and the one launch that writes them; arguments as in the reference.

    x is channels-last, float16, bfloat16 or float32, with h·w ≤ 256; w1_image has its dtype; all others are float32.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    shape = check_map(x, weight, bias)
    check("w1_image", w1_image, (w1_image.shape[0], shape.channels), x.dtype, x.device)
    head = check_classifier(shape.batch, w1_image.shape[0], classifier)
    config = tail_config(x.dtype, shape, head, target)
    outputs = head.empty_tail(shape.height, shape.width, x.device)
    launch = Launch(
        name="attention_tail",
        kernel=attention_tail_kernel,
        grid=(shape.batch, 1, 1),
        arguments={
            "x": x, "weight": weight, "bias": bias, "w1_image": w1_image, **classifier._asdict(),
            "pooled_maps": torch.empty(shape.batch, 2, shape.pixels, device=x.device),
            "gradients": torch.empty(shape.batch, 3, head.features, device=x.device), **outputs._asdict(),
        },
        stored=("pooled_maps", "gradients", *Tail._fields),
        constants={**shape.constants(order), **head.constants(), **config.blocks},
        config=config,
    )  # fmt: skip
    return Planned(outputs, (launch,))
