"""The step named is the first that differs, although exporters fuse steps and a ReLU overwrites its input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper
from own_models_for_tests import SmallNet, card, linear_onnx, random_tiles

from melanoma_infer.verification.intermediate import every_value
from melanoma_infer.verification.steps import Step, first_missing
from mminfer_export.from_module import TileModule, named_steps
from mminfer_export.from_onnx import bundle_graph
from mminfer_export.interface import interface_of

TILE = random_tiles(1)


@pytest.fixture(scope="module")
def graph():
    """Tiles ─ normalisation ─ mean colour ─ linear ─ softmax."""
    model = linear_onnx()
    return bundle_graph(model, interface_of(model, card()), card(), "logits", tiles=TILE)


@pytest.fixture(scope="module")
def steps():
    """What NumPy gives for these."""
    images = ((TILE / 255 - np.array(card().mean)) / np.array(card().std)).transpose(0, 3, 1, 2)
    weight, bias = (numpy_helper.to_array(tensor) for tensor in linear_onnx().graph.initializer)
    colour = images.mean((2, 3))
    logits = colour @ weight + bias
    probabilities = np.exp(logits) / np.exp(logits).sum()
    named = {"normalisation": images, "pool": colour, "fc": logits, "softmax": probabilities}
    return [Step(name, value.astype(np.float32)) for name, value in named.items()]


def names(graph, steps):
    """The last step that was found and the first that was not."""
    values = every_value(graph, TILE, engine="onnxruntime", precision="fp32")
    found = first_missing(steps, [value.array for value in values])
    return tuple(step and step.name for step in (found.last_found, found.step))


def wrong(step):
    return Step(step.name, step.value + np.float32(0.5) * np.abs(step.value).max())


def test_a_graph_that_agrees_has_no_first_difference(graph, steps):
    assert names(graph, steps) == ("softmax", None)


@pytest.mark.parametrize("place", range(4))
def test_everything_from_one_step_on_differs_and_that_step_is_named(graph, steps, place):
    given = [*steps[:place], *map(wrong, steps[place:])]
    before = steps[place - 1].name if place else None
    assert names(graph, given) == (before, steps[place].name)


def test_a_step_that_was_fused_with_the_next_is_no_difference(graph, steps):
    """A convolution whose batch normalisation the exporter folded into it has no value of its own."""
    given = [steps[0], Step("fused", np.ones((1, 7), np.float32)), *steps[1:]]
    assert names(graph, given) == ("softmax", None)


def test_a_step_within_a_block_that_agrees_is_no_difference(graph, steps):
    """A block may be fused into fewer nodes than it has steps: what it gives is what counts."""
    odd = np.ones((1, 7), np.float32)
    block = [Step("pool.0", odd), Step("pool.1", odd), Step("pool.2", odd)]
    assert names(graph, [steps[0], *block, *steps[1:]]) == ("softmax", None)


def test_a_step_beside_a_branch_that_agrees_is_still_named(graph, steps):
    """A residual block: its shortcut is right, so something behind the fault is found in the graph."""
    odd = np.ones((1, 7), np.float32)
    given = [steps[0], Step("block.conv", odd), Step("block.bn", odd), Step("block.shortcut", steps[1].value),
             Step("block.relu", odd), Step("block", odd), wrong(steps[2]), wrong(steps[3])]  # fmt: skip
    assert names(graph, given) == ("normalisation", "block.conv")


@pytest.mark.parametrize(("relative", "agrees"), [(0.9e-4, True), (1.2e-4, False)])
def test_values_agree_to_1e_4_of_the_step_s_largest(graph, steps, relative, agrees):
    largest = np.abs(steps[1].value).max()
    near = Step("pool", steps[1].value + np.float32(relative * largest))
    # `fc` is made to differ, so that `pool` is not taken for a fused step.
    _, first = names(graph, [steps[0], near, wrong(steps[2]), wrong(steps[3])])
    assert first == ("fc" if agrees else "pool")


def test_what_a_layer_gave_is_kept_before_a_relu_overwrites_it():
    net = TileModule(SmallNet().eval(), "logits", card()).eval()
    found = {step.name: step.value for step in named_steps(net, TILE[0])}
    assert list(found)[:2] == ["normalisation", "stem.0"]
    assert list(found)[-2:] == ["module", "softmax"]
    assert found["stem.1"].min() < 0 <= found["stem.2"].min()
    np.testing.assert_array_equal(np.maximum(found["stem.1"], 0), found["stem.2"])


def test_the_next_stage_does_not_excuse_the_last_step_of_a_stage(graph, steps):
    """Depth and attention are computed side by side: a right attention says nothing about the depth."""
    staged = [replace(wrong(steps[1]), stage="depth"), replace(steps[2], stage="attention")]
    assert names(graph, [steps[0], *staged, steps[3]]) == ("normalisation", "pool")
    assert names(graph, [steps[0], wrong(steps[1]), *steps[2:]]) == ("softmax", None)
