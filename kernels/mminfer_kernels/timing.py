"""The time of each function, beside plain PyTorch on the same device; its answer is checked before it is timed."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor

from mminfer_kernels import catalogue, reference, torch_ops
from mminfer_kernels.bounds import compare, worst
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.errors import KernelError
from mminfer_kernels.launch import TAIL_PIXELS, TailPlan, Target, tail_plan, target_of
from mminfer_kernels.reference import Classifier, Order

WARM_UPS = 3
REPEATS = 31
"""An odd number: the median is one of the times."""
READ_ON_THE_HOST = (("aggregate_tiles", "torch"),)
"""Functions by provider that read a tensor on the host, which no CUDA graph can contain."""


@dataclass(frozen=True)
class Row:
    """One function by one provider on one device; times of one call, in ms."""

    name: str
    provider: str
    """`kernel`, `torch` (the reference) or `as-written` (the paper's equations, with the attended map formed)."""
    plan: TailPlan | None
    """The plan by which the kernels compute the tail; None for other functions and providers."""
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
    """Yield a row for each provider that this device has; of the tail's plans, the one that the operator takes first.

    Raises:
        KernelError: a provider's answer is wrong, so its time would mean nothing.
    """
    arguments = catalogue.map_tensors(lambda tensor: tensor.to(device), catalogue.inputs(name, problem))
    truth = catalogue.reference(name, arguments)
    low = catalogue.reference(name, arguments, problem.dtype)
    providers: list[tuple[str, TailPlan | None, Callable[[], Any]]] = [
        ("torch", None, lambda: catalogue.reference(name, arguments, problem.dtype))
    ]
    if name == "attention_tail":
        providers.append(("as-written", None, lambda: _as_written(**arguments)))
    if device == "cuda":
        hardware, here = str(torch.cuda.get_device_name()), torch.device("cuda", torch.cuda.current_device())
        processors = torch.cuda.get_device_properties(here).multi_processor_count
        if (target := target_of(here)) is not None:
            calls = kernel_calls(name, arguments, target, processors)
            providers += [("kernel", plan, call) for plan, call in calls.items()]
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        hardware = f"{platform.machine()} {capability}, {torch.get_num_threads()} threads"
    for provider, plan, call in providers:
        results = catalogue.outputs_of(call())
        wanted, torchs = (truth, low) if provider != "as-written" else (truth[-1:], low[-1:])
        furthest = worst(map(compare, results, wanted, torchs))
        if not furthest.holds:
            raise KernelError(f"{name} by {provider} is wrong, so it is not timed: {furthest}.")
        p20, median, p80 = milliseconds(call, device, in_graph=(name, provider) not in READ_ON_THE_HOST)
        yield Row(
            name, provider, plan, problem.shape, str(problem.dtype).removeprefix("torch."), hardware,
            median, p20, p80, furthest.error, furthest.allowed,
        )  # fmt: skip


def kernel_calls(
    name: str, arguments: Mapping[str, Any], target: Target, processors: int
) -> dict[TailPlan | None, Callable[[], Any]]:
    """The calls that compute a function by kernels: both plans of the tail, the one that the operator takes first.

    Args:
        name: of the function.
        arguments: of the function.
        target: what the kernels are compiled for.
        processors: the number of the GPU's multiprocessors.
    """
    if name != "attention_tail":
        return {None: partial(getattr(torch_ops, name), **arguments)}
    batch, _, height, width = arguments["x"].shape
    first, _ = tail_plan(batch, height * width, processors)
    plans: tuple[TailPlan, ...] = ("attention_tail", "split")
    possible = plans if height * width <= TAIL_PIXELS else ("split",)
    return {
        plan: partial(torch_ops.tail_by, plan, tuple(arguments.values()), target)
        for plan in sorted(possible, key=lambda plan: plan != first)
    }


def _as_written(
    x: Tensor, weight: Tensor, bias: Tensor, w1_image: Tensor, classifier: Classifier, order: Order
) -> Tensor:
    """The features by Eq. 1–4: the attended map is formed and averaged, then W1."""
    attended = reference.spatial_attention(x, weight.to(x.dtype), bias.to(x.dtype), order).attended
    depth = classifier.depth_mm.to(x.dtype)[:, None] * classifier.w1_depth.to(x.dtype)
    return attended.mean((2, 3)) @ w1_image.T + depth


def milliseconds(call: Callable[[], Any], device: str, *, in_graph: bool = True) -> tuple[float, float, float]:
    """The 20th percentile, median and 80th percentile of one call, in ms.

    Args:
        call: what is timed.
        device: "cpu" or "cuda".
        in_graph: on a GPU, replay many calls as one CUDA graph. The host takes longer to start a kernel than a short
            one runs, and would be timed in its place. In a graph, what fits the GPU's L2 cache stays there.
    """
    if device == "cuda":
        from triton import testing

        bench = testing.do_bench_cudagraph if in_graph else testing.do_bench
        p20, median, p80 = bench(call, quantiles=[0.2, 0.5, 0.8])
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
