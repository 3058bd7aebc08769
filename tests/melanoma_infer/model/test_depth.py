"""The depth module: sizes follow Eq. 3, numbers equal a NumPy transcription, position matters, tile_px is checked."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from melanoma_infer.errors import UsageError
from melanoma_infer.model.depth import DepthModule, depth_channels


def eq_3(size, *, padding, filter_size, stride):
    return (size + 2 * padding - filter_size) // stride + 1


@pytest.mark.parametrize("tile_px", [256, 512, 768])
def test_sizes_after_each_convolution_and_pooling_follow_eq_3(tile_px):
    module = DepthModule(tile_px, width=4)
    seen = []
    for layer in (module.conv1, module.conv2, module.conv3, module.maxpool):
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[-1]))
    with torch.no_grad():
        module(torch.zeros(1, 3, tile_px, tile_px))
    expected, size = [], tile_px // 4
    for _ in range(3):
        size = eq_3(size, padding=1, filter_size=3, stride=1)
        expected.append(size)
        size = eq_3(size, padding=0, filter_size=2, stride=2)
        expected.append(size)
    assert seen == expected
    assert module.hidden.in_features == depth_channels(4)[2] * 8 * 8


@pytest.mark.parametrize(("width", "channels"), [(64, (16, 32, 64)), (16, (4, 8, 16)), (4, (2, 4, 8)), (1, (2, 4, 8))])
def test_channels_follow_the_width(width, channels):
    module = DepthModule(256, width)
    assert (module.conv1.out_channels, module.conv2.out_channels, module.conv3.out_channels) == channels


def blocks(x, size):
    """(C, H/size, W/size, size·size): the values of each whole block."""
    c, h, w = x.shape
    split = x.reshape(c, h // size, size, w // size, size).transpose(0, 1, 3, 2, 4)
    return split.reshape(c, h // size, w // size, size * size)


def depth_by_hand(module, image):
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    x = blocks(image, 4).mean(-1)
    for layer in ("conv1", "conv2", "conv3"):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        convolved = [correlate(padded, kernel, mode="valid")[0] for kernel in weights[f"{layer}.weight"]]
        x = blocks(np.maximum(np.stack(convolved) + weights[f"{layer}.bias"][:, None, None], 0), 2).max(-1)
    flat = blocks(x, x.shape[-1] // 8).mean(-1).reshape(-1)
    hidden = np.maximum(weights["hidden.weight"] @ flat + weights["hidden.bias"], 0)
    return np.log1p(np.exp(weights["out.weight"] @ hidden + weights["out.bias"]))[0]


@pytest.mark.parametrize("tile_px", [256, 512])
def test_the_depth_equals_a_numpy_transcription(tile_px):
    torch.manual_seed(3)
    module = DepthModule(tile_px, width=4).double()
    images = np.random.default_rng(2).normal(size=(2, 3, tile_px, tile_px))
    with torch.no_grad():
        depth_mm = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(depth_mm, [depth_by_hand(module, image) for image in images], rtol=1e-12)


def test_the_same_nest_further_down_has_a_different_depth():
    torch.manual_seed(3)
    module = DepthModule(256, width=4).double()
    images = torch.zeros(2, 3, 256, 256, dtype=torch.float64)
    images[0, :, 32:64, 64:96] = 5.0
    images[1, :, 160:192, 64:96] = 5.0
    with torch.no_grad():
        high, low = module(images)
    assert abs(high - low) > 1e-4  # averaging over all positions would give 0, because both nests fill whole blocks


@pytest.mark.parametrize("tile_px", [-256, 0, 128, 224, 500, 640])
def test_tile_sizes_that_do_not_divide_into_the_grid_are_refused(tile_px):
    with pytest.raises(UsageError, match="multiple of 256"):
        DepthModule(tile_px)
