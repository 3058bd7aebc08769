"""attention_project: channel mean, channel maximum and W1·x in one pass over x; programs share a tile's pixels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mminfer_kernels.device import larger, largest
from mminfer_kernels.inputs import check, check_feature_map
from mminfer_kernels.launch import Launch, Planned, Target, project_config
from mminfer_kernels.reference import Projection


@triton.jit
def attention_project_kernel(
    x, w1_image, average, maximum, projected,
    C: tl.constexpr, P: tl.constexpr, F: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program computes BLOCK_P pixels of one tile, over all channels."""
    tile = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    live = pixel < P
    channel = tl.arange(0, BLOCK_C)
    feature = tl.arange(0, F)
    x_at = x + tile * (C * P) + pixel[:, None] * C + channel[None, :]
    w_at = w1_image + feature[None, :] * C + channel[:, None]

    y = tl.zeros([BLOCK_P, F], tl.float32)
    total = tl.zeros([BLOCK_P], tl.float32)
    most = tl.full([BLOCK_P], float("-inf"), tl.float32)
    for start in range(0, C, BLOCK_C):
        there = start + channel < C
        values = tl.load(x_at, mask=live[:, None] & there[None, :], other=0.0)
        weights = tl.load(w_at, mask=there[:, None], other=0.0)
        candidates = tl.where(there[None, :], values.to(tl.float32), float("-inf"))
        y = tl.dot(values, weights, y, input_precision="ieee")
        total += tl.sum(values.to(tl.float32), 1)
        most = larger(most, largest(candidates, 1))
        x_at += BLOCK_C
        w_at += BLOCK_C

    tl.store(average + tile * P + pixel, total / C, mask=live)
    tl.store(maximum + tile * P + pixel, most, mask=live)
    y_at = projected + tile * (P * F) + pixel[:, None] * F + feature[None, :]
    tl.store(y_at, y, mask=live[:, None])


def plan(x: Tensor, w1_image: Tensor, *, target: Target) -> Planned[Projection]:
    """Return the outputs, not written yet, and the launch that writes them; arguments as in the reference.

    x is channels-last, float16, bfloat16 or float32, and w1_image has its dtype. The outputs are float32, the projected
    map channels-last.

    Raises:
        KernelInputError: a shape, dtype, layout or device differs from the above.
    """
    check_feature_map(x)
    batch, channels, height, width = x.shape
    features = w1_image.shape[0]
    check("w1_image", w1_image, (features, channels), x.dtype, x.device)
    config = project_config(x.dtype, target)
    plane = torch.empty(batch, height, width, dtype=torch.float32, device=x.device)
    projected = torch.empty(
        batch, features, height, width, dtype=torch.float32, device=x.device, memory_format=torch.channels_last
    )
    outputs = Projection(plane, torch.empty_like(plane), projected)
    launch = Launch(
        name="attention_project",
        kernel=attention_project_kernel,
        grid=(triton.cdiv(height * width, config.blocks["BLOCK_P"]), batch, 1),
        arguments={"x": x, "w1_image": w1_image, **outputs._asdict()},
        stored=Projection._fields,
        constants={"C": channels, "P": height * width, "F": features, **config.blocks},
        config=config,
    )
    return Planned(outputs, (launch,))
