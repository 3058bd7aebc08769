"""Where an exported graph begins to differ from the module it was made of.

The module's steps (normalisation, each submodule in the order of its calls, softmax) are looked for among all values
of the graph, by shape and numbers. Exporters fuse steps (a convolution with the normalisation behind it), so one that
is not found is no fault when the next one is found, or the block that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mminfer_export.run_onnx import load_onnx

TOLERANCE = 1e-4
"""Of a step's largest value: rounding was seen to reach 1e-5 in a ResNet-50."""
FLOOR = 1e-6


@dataclass(frozen=True)
class Step:
    """One step of a module: its name, and what it gives for a tile."""

    name: str
    value: NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """Up to where a graph agrees with a module, and the step behind; None at the beginning, or where none differs."""

    last_agreeing: str | None
    first_differing: str | None

    def __str__(self) -> str:
        if self.first_differing is None:
            return "Run node by node the graph agrees in every step, so a runtime's optimisation is what differs."
        upto = f"They agree up to `{self.last_agreeing}` and first" if self.last_agreeing else "They"
        return f"{upto} differ at `{self.first_differing}`."


def first_difference(graph: bytes, steps: Sequence[Step], tile: NDArray[np.uint8]) -> Difference:
    """Where the graph's values for a tile (1, H, W, 3) leave the module's steps.

    Raises:
        BundleError: the graph cannot be run.
    """
    values = _every_value(graph, tile)
    found = [any(_same(step.value, value) for value in values) for step in steps]
    whole = {step.name for step, there in zip(steps, found, strict=True) if there}
    for index, step in enumerate(steps):
        fused = any(found[index : index + 2]) or any(step.name.startswith(f"{name}.") for name in whole)
        if not fused:
            before = [each.name for each, there in zip(steps[:index], found, strict=False) if there]
            return Difference(before[-1] if before else None, step.name)
    return Difference(steps[-1].name if steps else None, None)


def _every_value(graph: bytes, tile: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    model = onnx.load_model_from_string(graph)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    floats = [value for value in typed.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    model.graph.output.extend(floats)
    names = [value.name for value in model.graph.output]
    return list(load_onnx(model.SerializeToString(), names, optimised=False)({"tiles": tile}).values())


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    if one.shape != other.shape or not one.size:
        return False
    return bool(np.abs(one - other).max() <= TOLERANCE * np.abs(one).max() + FLOOR)


def steps_of(net: nn.Module, tile: Tensor) -> list[Step]:
    """The steps of `net` for a tile (1, H, W, 3): what each submodule that gives one tensor gives, as they are called.

    Names are those of `net.named_modules()`; the net's own output comes last, under "".
    """
    steps: list[Step] = []
    hooks = [module.register_forward_hook(_recorder(name, steps)) for name, module in net.named_modules()]
    try:
        with torch.no_grad():
            net(tile)
    finally:
        for hook in hooks:
            hook.remove()
    return steps


def _recorder(name: str, steps: list[Step]) -> Callable[[nn.Module, object, object], None]:
    def record(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            # Copied: an in-place ReLU writes over what the layer before it gave.
            steps.append(Step(name, output.detach().float().numpy().copy()))

    return record
