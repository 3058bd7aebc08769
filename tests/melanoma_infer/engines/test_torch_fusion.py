"""The fused backbone, with cuDNN's two operators drawn for the CPU: the same numbers in a third of the operators."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.library import _scoped_library
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import torch_device, torch_fusion
from melanoma_infer.engines.torch_device import KernelNetwork
from melanoma_infer.engines.torch_engine import network_of
from melanoma_infer.engines.torch_fusion import fuses_right

CPU = torch.device("cpu")
RELU, ADD_RELU = "cudnn_convolution_relu", "cudnn_convolution_add_relu"


def relu(x, weight, bias, stride, padding, dilation, groups):
    return functional.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()


def add_relu(x, weight, skip, alpha, bias, stride, padding, dilation, groups):
    return (functional.conv2d(x, weight, bias, stride, padding, dilation, groups) + alpha * skip).relu()


def without_bias(x, weight, bias, *shape):
    return relu(x, weight, None, *shape)


def skip_after(x, weight, skip, alpha, *rest):
    return relu(x, weight, *rest) + alpha * skip


@pytest.fixture
def cudnn():
    """Gives the CPU these two operators."""
    with _scoped_library("aten", "IMPL") as library:

        def draw(one=relu, two=add_relu):
            library.impl(RELU, one, "CPU")
            library.impl(ADD_RELU, two, "CPU")

        yield draw


class Count(TorchDispatchMode):
    """The operators that were called."""

    def __init__(self):
        super().__init__()
        self.called = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def outputs_and_calls():
    demo = open_bundle("demo")
    network = KernelNetwork(network_of(demo), torch.float32, CPU)
    images = network._net.normalised(torch.from_numpy(demo.golden.tiles[:1])).contiguous(
        memory_format=torch.channels_last
    )
    with torch.inference_mode(), Count() as count:
        x = network._net.backbone(images)
    return network.is_fused, x, count.called


def test_every_convolution_but_the_shortcuts_is_fused_with_what_follows(cudnn):
    is_plain, plain, before = outputs_and_calls()
    cudnn()
    is_fused, fused, after = outputs_and_calls()
    assert (is_plain, is_fused) == (False, True)
    assert before == {"conv2d": 53, "relu": 49, "add": 16, "max_pool2d": 1}
    # The stem and two a block; the third of each of 16 blocks; and the shortcuts of 4.
    assert after == {RELU: 33, ADD_RELU: 16, "conv2d": 4, "max_pool2d": 1}
    assert fused.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-5 * float(plain.max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_what_is_right_is_taken_in_every_dtype(cudnn, dtype):
    assert not fuses_right(dtype, CPU)  # PyTorch has these operators for CUDA alone
    cudnn()
    assert fuses_right(dtype, CPU)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("wrong", [{"one": without_bias}, {"two": skip_after}], ids=["bias", "skip"])
def test_what_is_wrong_is_not_taken(cudnn, dtype, wrong):
    cudnn(**wrong)
    assert not fuses_right(dtype, CPU)


def test_an_older_pytorch_goes_on_without(monkeypatch):
    class Aten:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(torch_fusion.torch.ops, "aten", Aten())
    assert not fuses_right(torch.float32, CPU)


def test_a_gpu_is_asked_in_the_settings_that_it_computes_in(monkeypatch):
    """TF32 would be further off than float32 may be."""
    seen = []

    def asked(dtype, device):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return False

    monkeypatch.setattr(torch_device, "fuses_right", asked)
    KernelNetwork(network_of(open_bundle("demo")), torch.float32, CPU)
    assert seen == ["ieee"]
