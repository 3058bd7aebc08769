"""The steps of a PyTorch module, and the first of them that an exported graph does not contain.

Each step (a submodule's output) is searched for among all values of the graph, by size and numbers. Exporters fuse
steps, such as a convolution with the batch normalisation after it. A step that is missing is therefore no fault when
the next step of its stage is found, or the block that contains it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.verification.stages import Stage

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4
"""Relative to a step's largest value: rounding was seen to reach 1e-5 in a ResNet-50."""
FLOOR = 1e-6


@dataclass(frozen=True)
class Step:
    """One step of a module: its name, its output for a tile, and its stage where the network is our own."""

    name: str
    value: NDArray[np.float32]
    stage: Stage | None = None


@dataclass(frozen=True)
class FirstMissing:
    """The first step that the graph does not contain, and the last one before it that it does; None where none is."""

    last_found: Step | None
    step: Step | None

    def __str__(self) -> str:
        if self.step is None:
            return "Run node by node the graph agrees in every step, so a runtime's optimisation causes the difference."
        upto = f"They agree up to `{self.last_found.name}` and first" if self.last_found else "They"
        return f"{upto} differ at `{self.step.name}`."


@contextmanager
def recording(net: nn.Module) -> Iterator[list[Step]]:
    """A list that receives the output of each submodule of `net` that gives one tensor, in the order of the calls.

    Names are those of `net.named_modules()`; the output of `net` itself has the name "".
    """
    import torch

    steps: list[Step] = []

    def record(name: str, _module: Any, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            # Copied, because an in-place ReLU overwrites the output of the layer before it.
            steps.append(Step(name, output.detach().float().numpy().copy()))

    hooks = [module.register_forward_hook(partial(record, name)) for name, module in net.named_modules()]
    try:
        yield steps
    finally:
        for hook in hooks:
            hook.remove()


def first_missing(steps: Sequence[Step], values: Sequence[NDArray[np.float32]]) -> FirstMissing:
    """Search the values of a graph for the steps, in order, and return the first that is not among them."""
    by_size: defaultdict[int, list[NDArray[np.float32]]] = defaultdict(list)
    for value in values:
        by_size[value.size].append(value)
    found: list[bool] = []
    for step in steps:
        within = TOLERANCE * np.abs(step.value).max(initial=0.0) + FLOOR
        same_size = by_size[step.value.size] if step.value.size else []
        found.append(any(np.abs(step.value.ravel() - value.ravel()).max() <= within for value in same_size))
    complete = [step.name for step, there in zip(steps, found, strict=True) if there]
    for i, step in enumerate(steps):
        fused = i + 1 < len(steps) and found[i + 1] and steps[i + 1].stage == step.stage
        if not (found[i] or fused or any(step.name.startswith(f"{name}.") for name in complete)):
            before = [each for each, there in zip(steps[:i], found, strict=False) if there]
            return FirstMissing(before[-1] if before else None, step)
    return FirstMissing(steps[-1] if steps else None, None)
