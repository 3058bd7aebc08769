"""The time of each function, beside plain PyTorch on the same device; its answer is checked before it is timed."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor

from mminfer_kernels import catalogue, reference, torch_ops
from mminfer_kernels.bounds import compare, worst
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.errors import KernelError
from mminfer_kernels.reference import Classifier, Order

WARM_UPS = 3
REPEATS = 31
"""An odd number: the median is one of the times."""


@dataclass(frozen=True)
class Row:
    """One function by one provider on one device; times of one call, in ms."""

    name: str
    provider: str
    """`kernel`, `torch` (the reference) or `as-written` (the paper's equations, with the attended map formed)."""
    shape: str
    dtype: str
    device: str
    median_ms: float
    p20_ms: float
    p80_ms: float
    max_error: float
    """Largest difference from the reference in float64."""
    allowed_error: float


def measure(name: str, problem: Problem, device: str) -> Iterator[Row]:
    """Yield a row for each provider that this device has.

    Raises:
        KernelError: a provider's answer is wrong, so its time would mean nothing.
    """
    arguments = catalogue.map_tensors(lambda tensor: tensor.to(device), catalogue.inputs(name, problem))
    truth = catalogue.reference(name, arguments)
    low = catalogue.reference(name, arguments, problem.dtype)
    if device == "cuda":
        hardware = str(torch.cuda.get_device_name())
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        hardware = f"{platform.machine()} {capability}, {torch.get_num_threads()} threads"
    providers: dict[str, Callable[[], Any]] = {"torch": lambda: catalogue.reference(name, arguments, problem.dtype)}
    if name == "attention_tail":
        providers["as-written"] = lambda: _as_written(**arguments)
    if device == "cuda":
        providers["kernel"] = lambda: getattr(torch_ops, name)(**arguments)
    for provider, call in providers.items():
        results = catalogue.outputs_of(call())
        wanted, torchs = (truth, low) if provider != "as-written" else (truth[-1:], low[-1:])
        furthest = worst(map(compare, results, wanted, torchs))
        if not furthest.holds:
            raise KernelError(f"{name} by {provider} is wrong, so it is not timed: {furthest}.")
        p20, median, p80 = milliseconds(call, device)
        yield Row(
            name, provider, problem.shape, str(problem.dtype).removeprefix("torch."), hardware,
            median, p20, p80, furthest.error, furthest.allowed,
        )  # fmt: skip


def _as_written(
    x: Tensor, weight: Tensor, bias: Tensor, w1_image: Tensor, classifier: Classifier, order: Order
) -> Tensor:
    """The features by Eq. 1–4: the attended map is formed and averaged, then W1."""
    attended = reference.spatial_attention(x, weight.to(x.dtype), bias.to(x.dtype), order).attended
    depth = classifier.depth_mm.to(x.dtype)[:, None] * classifier.w1_depth.to(x.dtype)
    return attended.mean((2, 3)) @ w1_image.T + depth


def milliseconds(call: Callable[[], Any], device: str) -> tuple[float, float, float]:
    """The 20th percentile, median and 80th percentile of one call, in ms."""
    if device == "cuda":
        from triton.testing import do_bench

        p20, median, p80 = do_bench(call, quantiles=[0.2, 0.5, 0.8])
        return p20, median, p80
    for _ in range(WARM_UPS):
        call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    fifths = quantiles(times, n=10)
    return fifths[1], fifths[4], fifths[7]
