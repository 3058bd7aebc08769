"""The backbone is ResNet-50: names and shapes of its parameters follow the architecture."""

import pytest
import torch

from melanoma_infer.model.resnet50 import Bottleneck, ResNet50Backbone


def expected_shapes():
    """Name → shape of every tensor of ResNet-50 without its classifier, as in the published weights."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **normalisation("bn1", 64)}
    channels_in = 64
    for layer, (blocks, channels) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            out = 4 * channels
            shapes |= {
                f"{name}.conv1.weight": (channels, channels_in, 1, 1),
                f"{name}.conv2.weight": (channels, channels, 3, 3),
                f"{name}.conv3.weight": (out, channels, 1, 1),
                **normalisation(f"{name}.bn1", channels),
                **normalisation(f"{name}.bn2", channels),
                **normalisation(f"{name}.bn3", out),
            }
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (out, channels_in, 1, 1)
                shapes |= normalisation(f"{name}.downsample.1", out)
            channels_in = out
    return shapes


def normalisation(name, channels):
    entries = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**entries, f"{name}.num_batches_tracked": ()}


def test_names_and_shapes_are_those_of_the_published_weights():
    state = ResNet50Backbone(64).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected_shapes()


def test_it_has_resnet50s_number_of_parameters_without_the_classifier():
    assert sum(parameter.numel() for parameter in ResNet50Backbone(64).parameters()) == 25_557_032 - 2048 * 1000 - 1000


@pytest.mark.parametrize(("width", "height", "breadth"), [(1, 32, 64), (2, 224, 96), (4, 512, 512)])
def test_the_feature_map_has_32_widths_of_channels_at_a_32nd_of_the_size(width, height, breadth):
    backbone = ResNet50Backbone(width).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(2, 3, height, breadth)).shape == (2, 32 * width, height // 32, breadth // 32)


def test_a_block_without_a_branch_is_the_rectified_shortcut():
    torch.manual_seed(0)
    block = Bottleneck(6, 2, stride=2).double().eval()
    torch.nn.init.zeros_(block.bn3.weight)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        shortcut = torch.einsum("oc,nchw->nohw", block.downsample[0].weight[:, :, 0, 0], x[:, :, ::2, ::2])
        expected = (shortcut / (1 + 1e-5) ** 0.5).relu()
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_the_stride_is_in_the_3x3_convolution():
    first = ResNet50Backbone(1).layer2[0]
    assert (first.conv1.stride, first.conv2.stride, first.conv3.stride) == ((1, 1), (2, 2), (1, 1))
