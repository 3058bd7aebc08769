"""The attention module holds W and b, and computes the reference's formula with them."""

import torch

from melanoma_infer.model.attention import SpatialAttention
from mminfer_kernels import reference


def test_it_holds_a_7x7_convolution_from_two_channels_to_one_with_bias():
    assert {name: tuple(p.shape) for name, p in SpatialAttention().named_parameters()} == {
        "weight": (1, 2, 7, 7),
        "bias": (1,),
    }


def test_it_computes_the_reference_with_its_own_weights():
    torch.manual_seed(0)
    module = SpatialAttention().double()
    torch.nn.init.constant_(module.bias, 0.7)
    x = torch.randn(2, 9, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        truth = reference.spatial_attention(x, module.weight, module.bias)
        torch.testing.assert_close(module(x).attended, truth.attended, rtol=0, atol=0)
