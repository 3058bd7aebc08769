"""The reference functions against the paper's equations, written out in NumPy, in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from mminfer_kernels import catalogue, reference
from mminfer_kernels.catalogue import Problem

TOLERANCE = 1e-12  # float64, sums of fewer than 5000 terms of order 1

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 8, 2, 9), (3, 17, 16, 16), (2, 130, 4, 3)]


def attention_by_hand(x, weight, bias):
    """Eq. 1 for one tile (C, h, w), one output pixel at a time."""
    pooled = np.stack((x.mean(0), x.max(0)))
    half = weight.shape[-1] // 2
    padded = np.pad(pooled, ((0, 0), (half, half), (half, half)))
    size = weight.shape[-1]
    attention = np.empty(x.shape[1:])
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            window = padded[:, row : row + size, column : column + size]
            attention[row, column] = 1 / (1 + np.exp(-((window * weight[0]).sum() + bias[0])))
    return attention


@pytest.fixture(params=SHAPES, ids=str)
def inputs(request):
    rng = np.random.default_rng(5)
    x = rng.normal(size=request.param)
    return x, rng.normal(size=(1, 2, 7, 7)) / 5, rng.normal(size=1), rng.normal(size=(6, request.param[1]))


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_spatial_attention_is_eq_1_and_2(inputs):
    x, weight, bias, _ = inputs
    result = reference.spatial_attention(*tensors(x, weight, bias))
    by_hand = np.stack([attention_by_hand(tile, weight, bias) for tile in x])
    np.testing.assert_allclose(result.attention.numpy(), by_hand, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(result.attended.numpy(), by_hand[:, None] * x, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("channel", "pool"), [(0, np.mean), (1, np.max)], ids=["avg first", "max second"])
def test_the_convolution_sees_average_then_maximum(channel, pool):
    x = np.random.default_rng(1).normal(size=(1, 5, 3, 3))
    weight = np.zeros((1, 2, 7, 7))
    weight[0, channel, 3, 3] = 1.0
    attention = reference.spatial_attention(*tensors(x, weight, np.zeros(1))).attention
    np.testing.assert_allclose(attention.logit().numpy(), pool(x, axis=1), atol=TOLERANCE)


def classifier(rng, features, batch):
    """A classifier behind so many features, in NumPy."""
    shapes = [(batch,), (features,), (features,), (5, features), (5,), (4, 5), (4,)]
    groups = np.where(np.triu(np.ones((3, 4)), 1), -1e4, 0.0)
    arrays = [*(rng.normal(size=shape) for shape in shapes), np.concatenate((groups, np.where(groups, 0.0, -1e4)))]
    return reference.Classifier(*tensors(*arrays))


def test_projecting_first_gives_the_features_of_the_attended_map(inputs):
    x, weight, bias, w1_image = inputs
    head = classifier(np.random.default_rng(6), len(w1_image), len(x))
    result = reference.attention_tail(*tensors(x, weight, bias, w1_image), head)
    attention = np.stack([attention_by_hand(tile, weight, bias) for tile in x])
    np.testing.assert_allclose(result.attention.numpy(), attention, rtol=0, atol=TOLERANCE)
    pooled = (attention[:, None] * x).mean((2, 3))
    np.testing.assert_allclose(
        result.features.numpy(), pooled @ w1_image.T + np.outer(head.depth_mm, head.w1_depth), atol=1e-11
    )


def test_the_projection_is_mean_maximum_and_product(inputs):
    x, _, _, w1_image = inputs
    result = reference.attention_project(*tensors(x, w1_image))
    np.testing.assert_allclose(result.average.numpy(), x.mean(1), atol=TOLERANCE)
    np.testing.assert_array_equal(result.maximum.numpy(), x.max(1))
    np.testing.assert_allclose(result.projected.numpy(), np.einsum("fc,nchw->nfhw", w1_image, x), rtol=0, atol=1e-11)


def test_the_heads_maps_are_the_gradients_that_autograd_finds(inputs):
    """CAM j is A·(∂L_j/∂A), for the log-odds of classes 0…j against the others, with the features held as they are."""
    x, weight, bias, w1_image = inputs
    head = classifier(np.random.default_rng(6), len(w1_image), len(x))
    depth, w1_depth, offset, w2, b2, w3, b3, groups = head
    result = reference.attention_tail(*tensors(x, weight, bias, w1_image), head)
    attention = result.attention.clone().requires_grad_()
    projected = reference.attention_project(*tensors(x, w1_image)).projected
    features = (attention[:, None] * projected).mean((2, 3)) + depth[:, None] * w1_depth
    logits = ((features + offset).relu() @ w2.T + b2).relu() @ w3.T + b3
    np.testing.assert_allclose(result.probabilities.numpy(), logits.softmax(1).detach().numpy(), atol=TOLERANCE)
    for j in range(3):
        log_odds = (logits + groups[j]).logsumexp(1) - (logits + groups[j + 3]).logsumexp(1)
        (gradient,) = torch.autograd.grad(log_odds.sum(), attention, retain_graph=True)
        np.testing.assert_allclose(result.cam[:, j], (attention * gradient).detach(), rtol=0, atol=1e-10)


def test_normalised_tiles_are_channels_first_values_and_channels_last_memory():
    rng = np.random.default_rng(2)
    tiles = rng.integers(0, 256, size=(2, 5, 7, 3), dtype=np.uint8)
    mean, std = np.array([0.7, 0.5, 0.6]), np.array([0.2, 0.1, 0.3])
    result = reference.normalize_tiles(*tensors(tiles, mean, std), torch.float64)
    by_hand = np.moveaxis((tiles / 255 - mean) / std, 3, 1)
    np.testing.assert_allclose(result.numpy(), by_hand, rtol=0, atol=TOLERANCE)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_aggregates_are_sums_of_all_tiles_and_of_the_highest():
    scores, offsets = torch.tensor([2, 9, 5, 7, 1, 2**40, 3]), torch.tensor([0, 4, 4, 5, 7])
    result = reference.aggregate_tiles(scores, offsets, torch.tensor([3, 3, 3, 1]))
    expected = [[23, 0, 1, 2**40 + 3], [9, 0, 1, 2**40], [9 + 7 + 5, 0, 1, 2**40], [5, 0, 1, 2**40]]
    assert torch.stack(tuple(result)).tolist() == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_input_shows_in_the_features_of_its_tile_only(bad):
    rng = np.random.default_rng(6)
    x = torch.ones(2, 3, 4, 4, dtype=torch.float64)
    x[1, 2, 0, 0] = bad
    convolution = torch.full((1, 2, 7, 7), 0.1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    w1_image = torch.ones(2, 3, dtype=torch.float64)
    result = reference.attention_tail(x, *convolution, w1_image, classifier(rng, 2, 2))
    assert torch.isfinite(result.features[0]).all()
    assert not torch.isfinite(result.features[1]).any()


def test_importing_the_package_loads_neither_torch_nor_triton():
    code = "import sys, mminfer_kernels; sys.exit(bool({'torch', 'triton'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


@pytest.mark.parametrize("name", catalogue.KERNELS)
def test_the_reference_is_never_tf32(name, monkeypatch):
    """CuDNN's convolutions are TF32 by default; a bound of twice their error would be a thousand times too wide."""
    flags, function = [], getattr(reference, name)

    def noted(*args, **kwargs):
        flags.append((torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
        return function(*args, **kwargs)

    monkeypatch.setattr(reference, name, noted)
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    problem = Problem(torch.float32, 1, 16, 3, 3, tile_px=4)
    catalogue.reference(name, catalogue.inputs(name, problem))
    assert set(flags) == {("ieee", "ieee")}
    assert (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == before
