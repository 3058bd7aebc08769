"""attention_head: attention, features, probabilities and class activation maps from a projection of x."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.device import attention_at, classify
from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.inputs import check, check_classifier
from mminfer_kernels.launch import Launch, Planned, Target, head_config
from mminfer_kernels.reference import Classifier, Order, Projection, Tail


@triton.jit
def attention_head_kernel(
    average, maximum, projected, weight, bias, depth_mm, w1_depth, offset, w2, b2, w3, b3, groups,
    gradients, probabilities, attention, cam, features,
    H: tl.constexpr, W: tl.constexpr, SIZE: tl.constexpr, AVG_FIRST: tl.constexpr,
    F: tl.constexpr, M: tl.constexpr, K: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One program computes one tile: its attention in blocks of BLOCK_A pixels, then its projection in blocks of
    BLOCK_P pixels, once for the features and once more for the maps.
    """
    P: tl.constexpr = H * W
    tile = tl.program_id(0).to(tl.int64)
    feature = tl.arange(0, F)
    y_at = projected + tile * (P * F) + feature[None, :]

    for start in range(0, P, BLOCK_A):
        pixel = start + tl.arange(0, BLOCK_A)
        live = pixel < P
        heat = attention_at(average + tile * P, maximum + tile * P, weight, bias, pixel, live, H, W, SIZE, AVG_FIRST)
        tl.store(attention + tile * P + pixel, heat, mask=live)
    tl.debug_barrier()

    total = tl.zeros([BLOCK_P, F], tl.float32)
    for start in range(0, P, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        live = pixel < P
        y = tl.load(y_at + pixel[:, None] * F, mask=live[:, None], other=0.0)
        total += tl.load(attention + tile * P + pixel, mask=live, other=0.0)[:, None] * y
    image = tl.sum(total, 0) / P
    values = image + tl.load(w1_depth + feature) * tl.load(depth_mm + tile)
    tl.store(features + tile * F + feature, values)
    tl.debug_barrier()
    classify(
        features + tile * F, offset, w2, b2, w3, b3, groups, probabilities + tile * K, gradients + tile * (3 * F),
        F, M, K, BLOCK_K, BLOCK_M,
    )  # fmt: skip
    tl.debug_barrier()

    for start in range(0, P, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)
        live = pixel < P
        y = tl.load(y_at + pixel[:, None] * F, mask=live[:, None], other=0.0)
        heat = tl.load(attention + tile * P + pixel, mask=live, other=0.0)
        for j in tl.static_range(3):
            gradient = tl.load(gradients + (tile * 3 + j) * F + feature)
            tl.store(cam + (tile * 3 + j) * P + pixel, heat * tl.sum(y * gradient[None, :], 1) / P, mask=live)


def plan(
    projection: Projection,
    weight: Tensor,
    bias: Tensor,
    classifier: Classifier,
    order: Order = "avg-max",
    *,
    target: Target,
) -> Planned[Tail]:
    """Return the outputs, not written yet, and the launch that writes them; arguments as in the reference.

    All tensors are float32; projection.projected is channels-last.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    projected, device = projection.projected, classifier.depth_mm.device
    batch, features, height, width = projected.shape
    if not projected.is_contiguous(memory_format=torch.channels_last) or projected.dtype != torch.float32:
        raise KernelInputError("projected is not channels-last float32: give what attention_project returns.")
    check("average", projection.average, (batch, height, width), torch.float32, device)
    check("maximum", projection.maximum, (batch, height, width), torch.float32, device)
    size = weight.shape[-1]
    check("weight", weight, (1, 2, size, size), torch.float32, device)
    check("bias", bias, (1,), torch.float32, device)
    head = check_classifier(batch, features, classifier)
    config = head_config(head)
    outputs = head.empty_tail(height, width, device)
    launch = Launch(
        name="attention_head",
        kernel=attention_head_kernel,
        grid=(batch, 1, 1),
        arguments={
            **projection._asdict(), "weight": weight, "bias": bias, **classifier._asdict(),
            "gradients": torch.empty(batch, 3, features, device=device), **outputs._asdict(),
        },
        stored=("gradients", *Tail._fields),
        constants={
            "H": height, "W": width, "SIZE": size, "AVG_FIRST": order == "avg-max", **head.constants(), **config.blocks,
        },
        config=config,
    )  # fmt: skip
    return Planned(outputs, (launch,))
