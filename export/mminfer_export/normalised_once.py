"""Whether tiles are normalised once: a model that does so itself must not get the card's normalisation as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from numpy.typing import NDArray

from melanoma_infer.bundle.graph_edit import constant_of, consumers, producers
from melanoma_infer.errors import UsageError

MOVES = frozenset({"Cast", "Transpose", "Identity"})
SIGNS = {"Add": "Sub", "Sub": "Sub", "Mul": "Div", "Div": "Div"}
PIXELS = 50.0
"""Means, deviations and ranges of 0 to 255 are above this; what is normalised is far below."""


@dataclass(frozen=True)
class Step:
    """x − value or x / value, where x is between low and high."""

    kind: str
    value: NDArray[np.float64]
    low: float
    high: float


def check_normalised_once(content: bytes) -> None:
    """Raise UsageError if the graph's first steps normalise what is normalised already."""
    steps = list(_steps(onnx.load_model_from_string(content).graph))
    for step in steps:
        if (np.abs(step.value) >= PIXELS).all() and max(-step.low, step.high) < PIXELS:
            raise UsageError(_twice(step, "0 to 255", "std = [s, s, s] with s = 0.00392156862745098"))
    for step, following in pairwise(steps):
        usual = all(((each.value > 0) & (each.value < 1)).all() for each in (step, following))
        if usual and (step.kind, following.kind) == ("Sub", "Div") and (step.low < -0.1 or step.high > 1.1):
            raise UsageError(_twice(step, "0 to 1", "std = [1, 1, 1]"))


def _twice(step: Step, takes: str, std: str) -> str:
    values = ", ".join(f"{value:.4g}" for value in np.unique(step.value)[:3])
    return (
        f"The model normalises its tiles itself: it {'takes off' if step.kind == 'Sub' else 'divides by'} {values}, as "
        f"if it got {takes}. With mean and std as they were given, it gets {step.low:.3g} to {step.high:.3g}. Give "
        f"mean = [0, 0, 0] and {std}, or leave that step out of the model."
    )


def _steps(graph: onnx.GraphProto) -> Iterator[Step]:
    """The first operators on `tiles`, as long as each takes one value and a constant."""
    takers, makers = consumers(graph), producers(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    name, low, high = "tiles", 0.0, 255.0
    while True:
        nodes = [node for node in takers.get(name, []) if node.op_type != "Shape"]
        if len(nodes) != 1 or nodes[0].op_type not in MOVES | SIGNS.keys():
            return
        node, before = nodes[0], name
        name = node.output[0]
        if node.op_type in MOVES:
            continue
        second = before == node.input[-1]
        found = constant_of(node.input[0 if second else 1], stored, makers)
        if found is None or not found.size or (second and node.op_type in ("Sub", "Div")):
            return
        value = found.astype(np.float64)
        if SIGNS[node.op_type] == "Div" and not value.all():
            return
        value = {"Add": np.negative, "Mul": np.reciprocal}.get(node.op_type, np.positive)(value)
        step = Step(SIGNS[node.op_type], value, low, high)
        yield step
        ends = np.stack([each - value if step.kind == "Sub" else each / value for each in (low, high)])
        low, high = float(ends.min()), float(ends.max())
