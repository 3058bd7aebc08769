"""The reference functions against the paper's equations, written out in NumPy, in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from mminfer_kernels import reference

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


def test_attention_pool_is_the_mean_of_the_attended_map(inputs):
    x, weight, bias, _ = inputs
    result = reference.attention_pool(*tensors(x, weight, bias))
    by_hand = np.stack([(attention_by_hand(tile, weight, bias) * tile).mean((1, 2)) for tile in x])
    np.testing.assert_allclose(result.pooled.numpy(), by_hand, rtol=0, atol=TOLERANCE)


def test_projecting_first_gives_the_features_of_the_attended_map(inputs):
    x, weight, bias, w1v = inputs
    result = reference.attention_project(*tensors(x, weight, bias, w1v))
    attention = np.stack([attention_by_hand(tile, weight, bias) for tile in x])
    np.testing.assert_allclose(result.attention.numpy(), attention, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(result.projected.numpy(), np.einsum("fc,nchw->nfhw", w1v, x), rtol=0, atol=1e-11)
    pooled = (attention[:, None] * x).mean((2, 3))
    np.testing.assert_allclose(result.features.numpy(), pooled @ w1v.T, rtol=0, atol=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_input_shows_in_the_features_of_its_tile_only(bad):
    x = torch.ones(2, 3, 4, 4)
    x[1, 2, 0, 0] = bad
    result = reference.attention_project(x, torch.full((1, 2, 7, 7), 0.1), torch.zeros(1), torch.ones(2, 3))
    assert torch.isfinite(result.features[0]).all()
    assert not torch.isfinite(result.features[1]).any()


def test_importing_the_package_loads_neither_torch_nor_triton():
    code = "import sys, mminfer_kernels; sys.exit(bool({'torch', 'triton'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
