"""The depth module: sizes follow Eq. 3, numbers equal a NumPy transcription, distances matter and places do not."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from melanoma_infer.card import NETWORK_STEP_PX
from melanoma_infer.errors import UsageError
from melanoma_infer.model.depth import AVERAGE_PX, BLOCK, DepthModule, averages_of
from mminfer_kernels import reference
from mminfer_kernels.bounds import compare


def eq_3(size, *, padding, filter_size, stride):
    return (size + 2 * padding - filter_size) // stride + 1


@pytest.mark.parametrize("tile_px", [64, 256, 512])
def test_sizes_after_each_convolution_and_pooling_follow_eq_3(tile_px):
    module = DepthModule(tile_px)
    seen = []
    for layer in (module.conv1, module.conv2, module.conv3, module.maxpool):
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[-1]))
    with torch.no_grad():
        module(torch.zeros(1, 3, tile_px, tile_px))
    expected, size = [], tile_px // 8
    for filter_size in (5, 7, 9):
        size = eq_3(size, padding=filter_size // 2, filter_size=filter_size, stride=1)
        expected.append(size)
        size = eq_3(size, padding=0, filter_size=2, stride=2)
        expected.append(size)
    assert seen == expected


def blocks(x, size):
    """(C, H/size, W/size, size·size): the values of each whole block."""
    c, h, w = x.shape
    split = x.reshape(c, h // size, size, w // size, size).transpose(0, 1, 3, 2, 4)
    return split.reshape(c, h // size, w // size, size * size)


def depth_by_hand(module, image):
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    four = blocks(blocks(image, 4).mean(-1), 2)
    x = np.concatenate([four.mean(-1), 3 * (four.mean(-1) - four.min(-1))])
    for layer in ("conv1", "conv2", "conv3"):
        border = weights[f"{layer}.weight"].shape[-1] // 2
        padded = np.pad(x, ((0, 0), (border, border), (border, border)))
        convolved = [correlate(padded, kernel, mode="valid")[0] for kernel in weights[f"{layer}.weight"]]
        x = blocks(np.maximum(np.stack(convolved) + weights[f"{layer}.bias"][:, None, None], 0), 2).max(-1)
    pooled = np.concatenate([x.mean((1, 2)), x.max((1, 2))])
    hidden = np.maximum(weights["hidden.weight"] @ pooled + weights["hidden.bias"], 0)
    return np.log1p(np.exp(weights["out.weight"] @ hidden + weights["out.bias"]))[0]


@pytest.mark.parametrize("tile_px", [64, 256])
def test_the_depth_equals_a_numpy_transcription(tile_px):
    torch.manual_seed(3)
    module = DepthModule(tile_px).double()
    images = np.random.default_rng(2).normal(size=(2, 3, tile_px, tile_px))
    with torch.no_grad():
        depth_mm = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(depth_mm, [depth_by_hand(module, image) for image in images], rtol=1e-12)


def test_averages_of_bytes_are_those_of_normalised_pixels_within_the_rounding_of_float32():
    tiles = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (3, 128, 64, 3), dtype=np.uint8))
    tiles[1] = 255
    mean, std = torch.tensor([0.7, 0.55, 0.65]), torch.tensor([0.2, 0.24, 0.18])
    average = DepthModule(64).average
    exact = average(reference.normalize_tiles(tiles, mean.double(), std.double(), torch.float64))
    plain = average(reference.normalize_tiles(tiles, mean, std, torch.float32))
    result = averages_of(tiles, mean, std)
    assert result.shape == (3, 3, 32, 16)
    assert result.is_contiguous(memory_format=torch.channels_last)
    comparison = compare(result, exact, plain)
    assert comparison.holds, comparison
    assert comparison.error < 1e-6
    np.testing.assert_allclose(averages_of(tiles, mean.double(), std.double()), exact, rtol=0, atol=1e-12)


def test_a_nest_further_from_the_surface_has_another_depth_and_both_moved_have_the_same():
    """Moved by the side of the last map's places, so that only the borders differ, which are far away."""
    torch.manual_seed(3)
    module = DepthModule(1024).double()
    images = torch.zeros(3, 3, 1024, 1024, dtype=torch.float64)
    for image, surface, nest in zip(images, (384, 384, 448), (416, 544, 480), strict=True):
        image[:, surface : surface + 16, 384:640] = -5.0
        image[:, nest : nest + 32, 480:512] = 5.0
    with torch.no_grad():
        near, far, moved = module(images)
    assert abs(near - far) > 1e-4
    assert abs(near - moved) < 1e-12


def test_the_card_s_step_is_that_of_the_pooling():
    assert NETWORK_STEP_PX == AVERAGE_PX * BLOCK * 2**3


@pytest.mark.parametrize("tile_px", [-64, 0, 32, 224 + 8, 500, 544])
def test_tile_sizes_that_do_not_divide_are_refused(tile_px):
    with pytest.raises(UsageError, match="multiple of 64"):
        DepthModule(tile_px)
