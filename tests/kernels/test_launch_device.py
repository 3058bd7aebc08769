"""What a launch asks of a GPU: the device of its arguments, a grid that it takes, and no memory but what it states."""

from dataclasses import replace
from math import prod

import pytest
import torch
from drawn_torch_cuda_for_tests import draw_devices
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mminfer_kernels import catalogue, torch_ops
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.launch import GRID_LIMIT, TARGETS, Launch, LaunchConfig, tail_plan

SMALL = {"batch": 3, "channels": 64, "height": 7, "width": 7, "tile_px": 32}
CONFIG = LaunchConfig(4, 1, {}, "a test")


def launches(name, device):
    """The launches of a kernel for arguments that are only described, on a device that need not exist."""
    arguments = catalogue.inputs(name, Problem(catalogue.dtypes(name)[0], **SMALL))
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = catalogue.map_tensors(lambda tensor: torch.empty_like(tensor, device=device), arguments)
        return catalogue.plan(name, there, TARGETS[80]).launches


class Kernel:
    """Notes the device that is current when it is launched."""

    def __init__(self, current):
        self.current, self.launched_on = current, []

    def __getitem__(self, grid):
        return lambda **_: self.launched_on.append(self.current.number)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_launched_on_the_gpu_of_its_arguments(name, monkeypatch):
    """Triton launches on the thread's current GPU, with whatever addresses it gets."""
    current = draw_devices(monkeypatch)
    for launch in launches(name, "cuda:1"):
        kernel = Kernel(current)
        replace(launch, kernel=kernel).run()
        assert kernel.launched_on == [1]
        assert current.number == 0


def test_arguments_on_two_gpus_are_refused():
    with FakeTensorMode():
        arguments = {"x": torch.empty(1, device="cuda:1"), "out": torch.empty(1, device="cuda:0")}
    with pytest.raises(KernelInputError, match="some_kernel are on cuda:0 and cuda:1"):
        Launch("some_kernel", None, (1, 1, 1), arguments, ("out",), {}, CONFIG)


@pytest.mark.parametrize("name", ["block_means", "normalize_tiles", "spatial_attention", "attention_project"])
def test_more_tiles_than_a_grid_takes_are_refused(name):
    """The tile is the grid's second axis, of which CUDA takes 65,535; the launch would fail inside Triton."""
    few = catalogue.inputs(name, Problem(torch.float32, 1, 2, 1, 1, tile_px=1, kernel_size=1))
    for tiles in (GRID_LIMIT, GRID_LIMIT + 1):
        first = next(iter(few))
        many = few[first].repeat(tiles, 1, 1, 1)
        if first == "x":
            many = many.contiguous(memory_format=torch.channels_last)
        arguments = {**few, first: many}
        if tiles == GRID_LIMIT:
            catalogue.plan(name, arguments, TARGETS[80])
        else:
            with pytest.raises(KernelInputError, match=r"at most 65535 tiles in a call, not 65536\. Split the batch"):
                catalogue.plan(name, arguments, TARGETS[80])


class Ledger(TorchDispatchMode):
    """The bytes of each allocation, and the names of all other operators."""

    def __init__(self):
        super().__init__()
        self.allocated_bytes, self.others = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty):
            self.allocated_bytes.append(result.nbytes)
        else:
            self.others.append(str(func))
        return result


def scratch_bytes(name, problem, processors):
    """The memory that a function's launches write besides its outputs, all float32."""
    pixels = problem.height * problem.width
    pooled, gradients = 2 * pixels, 3 * problem.features
    values = {
        "block_means": 0,
        "resize_tiles": 0,
        "normalize_tiles": 0,
        "spatial_attention": pooled,
        "attention_project": 0,
        "attention_head": gradients,
        "attention_tail": pooled + gradients,
        "aggregate_tiles": 0,
    }[name]
    if name == "attention_tail" and tail_plan(problem.batch, pixels, processors)[0] == "split":
        values = pooled + problem.features * pixels + gradients
    return 4 * problem.batch * values


@pytest.mark.parametrize("processors", [0, 132], ids=["one-launch", "split"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_an_operator_allocates_its_outputs_and_its_scratch_memory_and_copies_nothing(
    name, dtype, processors, monkeypatch
):
    monkeypatch.setattr(Launch, "run", lambda launch: None)
    problem = Problem(dtype if dtype in catalogue.dtypes(name) else catalogue.dtypes(name)[0], **SMALL)
    flat = catalogue.flat(catalogue.inputs(name, problem))
    with Ledger() as ledger:
        results = torch_ops.compute(name, *flat, target=TARGETS[80], processors=processors)
    outputs = catalogue.outputs_of(results)
    assert ledger.others == []
    wanted = sum(prod(each.shape) * each.element_size() for each in outputs)
    assert sum(ledger.allocated_bytes) == wanted + scratch_bytes(name, problem, processors)
