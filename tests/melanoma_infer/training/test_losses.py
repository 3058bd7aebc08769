"""The joint loss: what is masked has no gradient, and the weights are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from melanoma_infer.training.labels import class_weights
from melanoma_infer.training.losses import class_loss, depth_loss, map_loss

LOGITS = [[0.5, -1.0, 2.0], [1.5, 0.2, -0.3], [0.0, 1.0, 3.0]]


def test_the_map_loss_is_the_cross_entropy_of_known_places():
    logits = torch.tensor([[[0.3, -2.0]], [[1.0, 5.0]]], requires_grad=True)
    shares = torch.tensor([[[1.0, 0.25]], [[math.nan, math.nan]]])
    p, q = (1 / (1 + math.exp(-z)) for z in (0.3, -2.0))
    loss = map_loss(logits, shares)
    by_hand = -(math.log(p) + 0.25 * math.log(q) + 0.75 * math.log(1 - q)) / 2
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().sum() == 0
    assert float(map_loss(logits.detach(), torch.full((2, 1, 2), math.nan))) == 0


def test_with_one_class_a_tile_it_is_pytorch_s_weighted_cross_entropy():
    logits, weights = torch.tensor(LOGITS), torch.tensor([0.5, 2.0, 3.0])
    classes = torch.tensor([2, 0, 1])
    own = class_loss(logits, functional.one_hot(classes, 3).bool(), weights)
    assert float(own) == pytest.approx(float(functional.cross_entropy(logits, classes, weights)))


def test_an_unknown_outcome_is_minus_log_of_the_sum_over_malignant_classes():
    logits = torch.tensor(LOGITS[:1])
    p = [math.exp(z) for z in LOGITS[0]]
    own = class_loss(logits, torch.tensor([[False, True, True]]), torch.ones(3))
    assert float(own) == pytest.approx(-math.log((p[1] + p[2]) / sum(p)))


def test_an_unknown_outcome_does_not_move_the_ratio_of_the_malignant_classes():
    """The gradients of the two logits are in proportion to their probabilities: log(p1 / p2) has none of its own."""
    logits = torch.tensor(LOGITS[:1], requires_grad=True)
    class_loss(logits, torch.tensor([[False, True, True]]), torch.ones(3)).backward()
    assert logits.grad is not None
    gradient, p = logits.grad[0], logits.detach()[0].softmax(0)
    assert float(gradient[1] / p[1]) == pytest.approx(float(gradient[2] / p[2]))
    # Its features' gradient by the outcome's log-odds, with equal probabilities of the two, is zero.
    even = torch.tensor([[0.3, 1.0, 1.0]], requires_grad=True)
    class_loss(even, torch.tensor([[False, True, True]]), torch.ones(3)).backward()
    assert even.grad is not None
    assert float(even.grad[0, 1] - even.grad[0, 2]) == pytest.approx(0, abs=1e-7)
    assert float(even.grad[0, 0]) > 0.1


def test_unknown_depths_are_masked():
    depth = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    loss = depth_loss(depth, torch.tensor([1.05, math.nan, 2.0]), 0.1)
    # 0.05² / (2 · 0.1) below the corner, 1 − 0.1 / 2 above it.
    loss.backward()
    assert loss.item() == pytest.approx((0.0125 + 0.95) / 2)
    assert depth.grad is not None
    assert depth.grad.tolist() == pytest.approx([-0.25, 0.0, 0.5])


def test_without_any_known_depth_the_loss_and_its_gradient_are_zero():
    depth = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = depth_loss(depth, torch.tensor([math.nan, math.nan]), 0.1)
    loss.backward()
    assert depth.grad is not None
    assert (loss.item(), depth.grad.tolist()) == (0.0, [0.0, 0.0])


def test_class_weights_let_all_classes_count_the_same():
    """Six tiles of one class, two of another, and four of which only malignant is known: 2 + 4/2, 4/2 of the last."""
    allowed = np.array([[1, 0, 0]] * 6 + [[0, 1, 0]] * 2 + [[0, 1, 1]] * 4, bool)
    weights = class_weights(allowed)
    assert weights.tolist() == pytest.approx([12 / (3 * 6), 12 / (3 * 4), 12 / (3 * 2)])
    counts = np.array([6, 4, 2])
    assert (weights * counts).tolist() == pytest.approx([4, 4, 4])


def test_a_class_without_tiles_has_no_weight():
    assert class_weights(np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)).tolist() == pytest.approx([0.75, 1.5, 0])
