"""The operators as PyTorch sees them: opcheck passes, export and compile see one node, CPUs run the plain functions."""

import subprocess
import sys

import pytest
import torch

from mminfer_kernels import catalogue, torch_ops
from mminfer_kernels.catalogue import KERNELS, Problem

SMALL = {"batch": 2, "channels": 12, "height": 5, "width": 3, "tile_px": 8, "features": 16, "middle": 16}


def problem_of(name, dtype):
    known = catalogue.dtypes(name)
    return Problem(dtype if dtype in known else known[0], **SMALL)


def call(name, arguments):
    return catalogue.outputs_of(getattr(torch_ops, name)(**arguments))


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize("name", KERNELS)
def test_operators_pass_opcheck(name, dtype):
    arguments = catalogue.inputs(name, problem_of(name, dtype))
    operator = getattr(torch.ops.mminfer, name).default
    torch.library.opcheck(operator, tuple(catalogue.flat(arguments)))


@pytest.mark.parametrize("name", KERNELS)
def test_on_a_cpu_operators_are_the_plain_functions_in_float32(name, dtype):
    arguments = catalogue.inputs(name, problem_of(name, dtype))
    expected = catalogue.reference(name, arguments, torch.float32)
    for result, truth in zip(call(name, arguments), expected, strict=True):
        torch.testing.assert_close(result, truth.to(result.dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", KERNELS)
def test_results_do_not_depend_on_the_memory_format(name):
    arguments = catalogue.inputs(name, problem_of(name, torch.float32))
    contiguous = catalogue.map_tensors(torch.Tensor.contiguous, arguments)
    for one, other in zip(call(name, arguments), call(name, contiguous), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6, equal_nan=True)
        assert one.stride() == other.stride()


class Tail(torch.nn.Module):
    """A network that ends in the operator."""

    def __init__(self, arguments):
        super().__init__()
        self.rest = arguments

    def forward(self, x):
        return torch_ops.attention_tail(x, **self.rest).probabilities * 2


@pytest.fixture
def tail():
    arguments = catalogue.inputs("attention_tail", problem_of("attention_tail", torch.float32))
    return Tail({key: value for key, value in arguments.items() if key != "x"}), arguments["x"]


def test_export_sees_one_operator(tail):
    module, x = tail
    graph = torch.export.export(module, (x,)).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert [name for name in called if name != "<built-in function getitem>"] == [
        "mminfer.attention_tail.default",
        "aten.mul.Tensor",
    ]


def test_compile_sees_one_operator_and_keeps_the_numbers(tail):
    module, x = tail
    seen = []

    def backend(graph, _inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    compiled = torch.compile(module, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=0)
    assert sum("attention_tail" in name for name in seen) == 1


def test_cpu_tensors_need_no_triton():
    code = (
        "import sys; from mminfer_kernels import torch_ops; import torch;"
        "torch_ops.aggregate_tiles(torch.tensor([1, 2, 3]), torch.tensor([0, 3]), torch.tensor([1]));"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
