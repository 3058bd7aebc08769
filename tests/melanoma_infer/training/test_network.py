"""The forward pass of training against the network that is exported, and what a part that is left out contributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_for_tests import drawn, training_card

from melanoma_infer.training.network import LADDER, Parts, TrainingNet, seeded_net

CARD = training_card()
UNKNOWN = torch.tensor([[0.0, 0, 1, 0, 0, 1]])
KNOWN = torch.tensor([[0.0, 1, 0, 1, 0, 0]])


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([drawn(rng, depth) for depth in (None, 1.0)]))


def net_of(parts: Parts) -> TrainingNet:
    return seeded_net(CARD, parts, 3).eval()


@torch.no_grad()
def test_it_is_the_paper_s_equations_with_this_patient(tiles):
    model, patients = net_of(Parts()), torch.cat([KNOWN, UNKNOWN])
    expected = model.net.full_forward(tiles, patients)
    assert model(tiles, patients).logits.softmax(1).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@torch.no_grad()
def test_for_an_unknown_patient_it_is_what_the_graph_answers(tiles):
    model = net_of(Parts())
    predicted, graph = model(tiles, UNKNOWN.expand(2, -1)), model.net(tiles)
    assert predicted.logits.softmax(1).numpy() == pytest.approx(graph.probabilities.numpy(), abs=1e-6)
    assert predicted.depth_mm is not None
    assert predicted.depth_mm.numpy() == pytest.approx(graph.depth_mm.numpy(), abs=1e-6)


def parameters_that_matter(parts: Parts, tiles: torch.Tensor) -> set[str]:
    """Names of the parameters that get a gradient from the logits and the depth."""
    model = net_of(parts)
    logits, depth_mm, _ = model(tiles, KNOWN.expand(2, -1))
    (logits.square().sum() + (0 if depth_mm is None else depth_mm.sum())).backward()
    found = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.abs().sum() > 0}
    return {name.removeprefix("net.").split(".")[0] for name in found}


@pytest.mark.parametrize(
    ("rung", "matter"),
    [
        ("unimodal", {"backbone", "linear"}),
        ("backbone", {"backbone", "w1_image", "b1", "w2", "b2", "w3", "b3"}),
        ("attention", {"backbone", "attention", "w1_image", "b1", "w2", "b2", "w3", "b3"}),
        ("depth", {"backbone", "attention", "depth", "w1_image", "w1_depth", "b1", "w2", "b2", "w3", "b3"}),
        (
            "patient",
            {"backbone", "attention", "depth", "w1_image", "w1_depth", "w1_patient", "b1", "w2", "b2", "w3", "b3"},
        ),
    ],
)
def test_a_part_that_is_left_out_has_no_gradient(rung, matter, tiles):
    assert parameters_that_matter(LADDER[rung], tiles) == matter


@torch.no_grad()
def test_a_part_that_is_left_out_changes_no_answer(tiles):
    model, patients = net_of(LADDER["backbone"]), KNOWN.expand(2, -1)
    before = model(tiles, patients).logits
    for each in (*model.net.attention.parameters(), *model.net.depth.parameters()):
        each.add_(1)
    model.net.w1_depth.add_(1)
    model.net.w1_patient.add_(1)
    assert torch.equal(model(tiles, patients).logits, before)


@torch.no_grad()
def test_hidden_channels_leave_depth_and_patient(tiles):
    model, patients = net_of(Parts()), KNOWN.expand(2, -1)
    channels = model.net.backbone.channels_out
    all_kept = model(tiles, patients, torch.ones(2, channels)).logits
    assert torch.equal(all_kept, model(tiles, patients).logits)
    hidden = model(tiles, patients, torch.zeros(2, channels))
    model.net.w1_image.zero_()
    assert torch.equal(hidden.logits, model(tiles, patients).logits)
    assert not torch.equal(hidden.logits, all_kept)


@torch.no_grad()
def test_a_measured_thickness_takes_the_estimate_s_place_in_the_classifier_alone(tiles):
    model, patients = net_of(Parts()), KNOWN.expand(2, -1)
    estimated = model(tiles, patients)
    measured = torch.tensor([4.0, torch.nan])
    given = model(tiles, patients, measured_mm=measured)
    assert torch.equal(given.depth_mm, estimated.depth_mm)
    assert torch.equal(given.logits[1], estimated.logits[1])
    assert not torch.equal(given.logits[0], estimated.logits[0])
    same = model(tiles, patients, measured_mm=estimated.depth_mm)
    assert torch.equal(same.logits, estimated.logits)


def test_the_map_that_is_trained_is_the_graph_s(tiles):
    """Times the number of places; it moves the backbone and the attention, and no depth."""
    model = net_of(Parts())
    predicted = model(tiles, KNOWN.expand(2, -1), with_map=True)
    graph = model.net(tiles).cam[:, 0] * 16
    assert predicted.lesion_map is not None
    assert predicted.lesion_map.detach().numpy() == pytest.approx(graph.detach().numpy(), rel=1e-4, abs=1e-5)
    assert model(tiles, KNOWN.expand(2, -1)).lesion_map is None
    predicted.lesion_map.square().sum().backward()
    assert all(each.grad is None for each in model.net.depth.parameters())
    for each in (model.net.attention.weight, model.net.backbone.conv1.weight):
        assert each.grad is not None
        assert each.grad.abs().sum() > 0


def test_no_class_bends_the_depth(tiles):
    """The class loss has no gradient in the depth module."""
    model = net_of(Parts())
    model(tiles, KNOWN.expand(2, -1)).logits.square().sum().backward()
    assert all(each.grad is None for each in model.net.depth.parameters())
    assert model.net.w1_depth.grad is not None


def test_the_seed_sets_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first, again, other = (seeded_net(CARD, Parts(), seed).net.w3 for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@torch.no_grad()
def test_the_depth_of_averaged_tiles_is_that_of_the_tiles(tiles):
    """Up to the rounding of the averages to whole numbers."""
    model = net_of(Parts())
    tiles = torch.stack((tiles[0], tiles[1] // 4))
    averages = tiles.float().unflatten(1, (32, 4)).unflatten(3, (32, 4)).mean((2, 4)).round().byte()
    expected = model(tiles, KNOWN.expand(2, -1)).depth_mm
    assert expected is not None
    assert model.depth_of_averages(averages).numpy() == pytest.approx(expected.numpy(), abs=1e-3)
    assert abs(float(expected[0] - expected[1])) > 5e-3
