"""The first stage of a graph whose numbers differ from the reference's, for one tile.

A correct fp32 graph is the reference: each of its values is compared with the value of the same name in the other
graph, or, if the names differ, of the same position among operators of its type. If the fp32 graph itself is wrong,
the steps of our own network are searched for among its values (`steps`); other models only have their outputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.golden import golden_differences
from melanoma_infer.tolerances import Precision
from melanoma_infer.verification.intermediate import Value, every_value
from melanoma_infer.verification.mistakes import graph_engine, input_mistakes
from melanoma_infer.verification.stages import STAGES, Stage, stages_of
from melanoma_infer.verification.steps import Step, first_missing, recording

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.15, "fp16": 0.05, "int8": 0.3}
"""Largest relative RMS difference of a value by rounding. A correct bf16 backbone of random weights shows 0.07."""

STAGE_OF_OUTPUT: tuple[tuple[str, Stage], ...] = (
    ("attention", "backbone"),
    ("depth_mm", "depth"),
    ("features", "projection"),
    ("probabilities", "head"),
    ("cam", "maps"),
)
"""The first stage that can be at fault when this output is wrong and the ones above it are right."""


@dataclass(frozen=True)
class FirstDifference:
    """The stage, and the value or module in it. The stage is None when every value agrees."""

    stage: Stage | None
    detail: str


def first_difference(bundle: Bundle, engine: str, precision: Precision, tile: NDArray[np.uint8]) -> FirstDifference:
    """Where an engine's numbers first differ from the reference's for a tile (1, H, W, 3).

    Raises:
        EngineUnavailableError: no runtime on this machine returns the intermediate values of a graph.
    """
    own = network_steps(bundle, tile)
    if not own and not _gives_golden(bundle, bundle.graphs["fp32"], bundle.golden.tiles):
        return golden_difference(bundle)
    plain = every_value(bundle.graphs["fp32"], tile, engine="onnxruntime", precision="fp32")
    if own and (missing := first_missing(own, [value.array for value in plain]).step):
        return _explained(bundle, FirstDifference(missing.stage, missing.name))
    values = every_value(bundle.graphs.get(precision, bundle.graphs["fp32"]), tile, engine=engine, precision=precision)
    return first_unlike(bundle, plain, values, precision)


def _gives_golden(bundle: Bundle, graph: bytes, tiles: NDArray[np.uint8]) -> bool:
    outputs = graph_engine(bundle, graph).infer(tiles)
    return golden_differences(bundle, outputs).excess(bundle.card.tolerance_of("fp32")) is None


def golden_difference(bundle: Bundle) -> FirstDifference:
    """The input mistake that explains why the fp32 graph does not give the golden outputs; stage None: none does."""
    return _explained(bundle, FirstDifference(None, ""))


def _explained(bundle: Bundle, wrong: FirstDifference) -> FirstDifference:
    """The input mistake after whose correction the fp32 graph gives the golden outputs, else `wrong` unchanged."""
    if wrong.stage not in (None, "input"):
        return wrong
    for mistake in input_mistakes(bundle.card):
        graph = mistake.undone(bundle.graphs["fp32"])
        if graph is not None and _gives_golden(bundle, graph, mistake.pixels(bundle.golden.tiles)):
            return FirstDifference("input", mistake.name)
    return wrong


def network_steps(bundle: Bundle, tile: NDArray[np.uint8]) -> list[Step]:
    """The steps of our own network in PyTorch; empty if the bundle has no weights or PyTorch is not installed."""
    if bundle.weights is None or bundle.card.network is None:
        return []
    try:
        import torch

        from melanoma_infer.engines.torch_engine import network_of
    except ImportError:
        return []
    net = network_of(bundle)
    with torch.inference_mode(), recording(net) as recorded:
        given = torch.from_numpy(np.ascontiguousarray(tile))
        outputs = net(given)
        first = Step("normalised", net.normalised(given).numpy(), "input")
    stages: dict[str, Stage] = {"backbone": "backbone", "depth": "depth"}
    parts = [replace(step, stage=stages[part]) for step in recorded if (part := step.name.split(".")[0]) in stages]
    last: tuple[tuple[Stage, str], ...] = (
        ("attention", "attention"), ("projection", "features"), ("head", "probabilities"), ("maps", "cam")
    )  # fmt: skip
    return [first, *parts, *(Step(name, getattr(outputs, name).numpy(), stage) for stage, name in last)]


def first_unlike(
    bundle: Bundle, reference: Sequence[Value], other: Sequence[Value], precision: Precision
) -> FirstDifference:
    """The first value whose relative RMS difference exceeds rounding; if none does, the one with the largest."""
    import onnx

    stages = stages_of(onnx.load_model_from_string(bundle.graphs["fp32"]).graph)
    errors: list[tuple[Value, float]] = []
    for one, two in paired(reference, other):
        squares = (np.square(one.array, dtype=np.float64), np.square(one.array - np.asarray(two.array, np.float64)))
        scale, difference = (float(np.sqrt(np.mean(each))) for each in squares)
        errors.append((one, difference / max(scale, 1e-6)))
    for value, error in errors:
        if not error <= TOLERANCES[precision]:
            return FirstDifference(stages[value.name], f"{value.op} {value.name}")
    if not errors:
        return FirstDifference(None, "the graphs have no values in common")
    worst, error = max(errors, key=lambda each: each[1])
    return FirstDifference(
        None,
        f"accumulated rounding, no single fault; largest in {worst.op} {worst.name}: {error:.1%} of its RMS "
        f"({STAGES[stages[worst.name]]})",
    )


def paired(reference: Sequence[Value], other: Sequence[Value]) -> Iterator[tuple[Value, Value]]:
    """Pairs of corresponding values in the reference's order: by name, else by position among operators of the type."""
    named = {value.name: value for value in other}
    if sum(value.name in named for value in reference) * 2 >= len(reference):
        pairs = ((value, named.get(value.name)) for value in reference)
    else:
        kinds: defaultdict[tuple[str, int], list[Value]] = defaultdict(list)
        for value in reversed(other):
            kinds[value.op, value.array.size].append(value)
        waiting = ((value, kinds[value.op, value.array.size]) for value in reference)
        pairs = ((value, same.pop() if same else None) for value, same in waiting)
    return ((one, two) for one, two in pairs if two is not None and one.array.shape == two.array.shape)


def told_by_outputs(names: Sequence[str], card_outputs: Sequence[str]) -> FirstDifference:
    """The first stage that can be at fault, judged by which outputs exceed their tolerances."""
    wrong = set(names)
    detail = f"from the outputs alone: {', '.join(sorted(wrong))}" if wrong else "from the outputs alone"
    if {"attention", "depth_mm"} <= wrong:
        return FirstDifference("input", detail)
    for name, stage in STAGE_OF_OUTPUT:
        if name in wrong and (name != "probabilities" or "features" in card_outputs):
            return FirstDifference(stage, detail)
    return FirstDifference(None, "the model returns only probabilities, which tell no stage" if wrong else detail)
