"""The attention module holds W and b, and computes the reference's formula with them, by one operator if it may."""

import subprocess
import sys

import pytest
import torch

from melanoma_infer.model.attention import SpatialAttention
from mminfer_kernels import reference, torch_ops


@pytest.fixture
def module():
    torch.manual_seed(0)
    attention = SpatialAttention()
    torch.nn.init.constant_(attention.bias, 0.7)
    return attention


@pytest.fixture
def x():
    return torch.randn(2, 9, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def operator_calls(monkeypatch):
    """The number of arguments of each call of the operator."""
    calls = []
    real = torch_ops.spatial_attention
    monkeypatch.setattr(torch_ops, "spatial_attention", lambda *given: calls.append(len(given)) or real(*given))
    return calls


def test_it_holds_a_7x7_convolution_from_two_channels_to_one_with_bias():
    assert {name: tuple(p.shape) for name, p in SpatialAttention().named_parameters()} == {
        "weight": (1, 2, 7, 7),
        "bias": (1,),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_without_gradients_one_operator_gives_the_reference_s_bits(module, x, operator_calls, dtype):
    module, x = module.to(dtype), x.to(dtype)
    with torch.no_grad():
        truth, result = reference.spatial_attention(x, module.weight, module.bias), module(x)
    assert operator_calls == [3]
    assert result.attended.dtype == result.attention.dtype == dtype
    torch.testing.assert_close(tuple(result), tuple(truth), rtol=0, atol=0)


def test_frozen_parameters_need_no_gradients(module, x, operator_calls):
    module.requires_grad_(False)(x)
    assert operator_calls == [3]


@pytest.mark.parametrize("needs", ["weight", "bias", "x"])
def test_gradients_reach_what_needs_them(module, x, operator_calls, needs):
    module.requires_grad_(False)
    tensors = {"weight": module.weight, "bias": module.bias, "x": x}
    tensors[needs].requires_grad_()
    module(x).attended.sum().backward()
    assert tensors[needs].grad.abs().max() > 0
    assert operator_calls == []


def test_an_exported_graph_has_plain_operators(module, x):
    with torch.no_grad():
        graph = torch.export.export(module.requires_grad_(False), (x,)).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert any("conv2d" in name for name in called)
    assert not any("mminfer" in name for name in called)


@pytest.mark.filterwarnings("ignore:.*jit.trace:DeprecationWarning")
def test_a_traced_module_has_plain_operators(module, x):
    with torch.no_grad():
        traced = torch.jit.trace(module.requires_grad_(False), x)
    assert not any(node.kind().startswith("mminfer") for node in traced.inlined_graph.nodes())


def test_it_needs_no_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from melanoma_infer.model.attention import SpatialAttention\n"
        "with torch.no_grad(): print(tuple(SpatialAttention()(torch.ones(1, 3, 5, 5)).attention.shape))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True
    )
    assert done.stdout == "(1, 5, 5)\n", done.stderr
