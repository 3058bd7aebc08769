"""Which plan and which launch parameters are chosen, and what the plans refuse."""

import pytest
import torch

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.launch import TAIL_PIXELS, TARGETS, tail_plan

H100_PROCESSORS, L4_PROCESSORS = 132, 58


@pytest.mark.parametrize(
    ("batch", "pixels", "processors", "plan"),
    [
        (128, 256, H100_PROCESSORS, "attention_tail"),
        (66, TAIL_PIXELS, H100_PROCESSORS, "attention_tail"),
        (65, 256, H100_PROCESSORS, "split"),
        (29, 256, L4_PROCESSORS, "attention_tail"),
        (1, 256, L4_PROCESSORS, "split"),
        (128, TAIL_PIXELS + 1, L4_PROCESSORS, "split"),
        (1, 49, 0, "attention_tail"),
    ],
)
def test_the_tail_is_one_launch_where_it_fits_and_fills_the_gpu(batch, pixels, processors, plan):
    assert tail_plan(batch, pixels, processors)[0] == plan


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("sm", TARGETS)
def test_every_launch_says_why_and_covers_its_constants(name, sm):
    for dtype in catalogue.dtypes(name):
        arguments = catalogue.inputs(name, Problem(dtype, 1, 64, 7, 7, tile_px=32))
        for launch in catalogue.plan(name, arguments, TARGETS[sm]).launches:
            assert launch.config.reason
            assert {**launch.constants, **launch.config.blocks} == launch.constants
            assert launch.kernel.arg_names == [*launch.arguments, *launch.constants]
            assert set(launch.stored) <= set(launch.arguments)


WRONG = {
    "x not channels-last": {"x": lambda x: x.contiguous()},
    "x of integers": {"x": lambda x: x.int()},
    "x without tiles' axis": {"x": lambda x: x[0]},
    "x without pixels": {"x": lambda x: x[:, :, :0]},
    "an even convolution": {"weight": lambda weight: weight[..., :4, :4].contiguous()},
    "w1 in another dtype": {"w1_image": lambda w1_image: w1_image.double()},
    "too few depths": {"classifier": lambda head: head._replace(depth_mm=head.depth_mm[:1])},
    "rows of groups missing": {"classifier": lambda head: head._replace(groups=head.groups[:5])},
    "w2 transposed": {"classifier": lambda head: head._replace(w2=head.w2.T)},
    "more pixels than registers": {"x": lambda x: x.repeat(1, 1, 3, 3).contiguous(memory_format=torch.channels_last)},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_attention_tail_refuses_what_it_cannot_compute(change):
    arguments = catalogue.inputs("attention_tail", Problem(torch.float16, 2, 64, 7, 7))
    ((name, wrong),) = change.items()
    with pytest.raises(KernelInputError):
        catalogue.plan("attention_tail", {**arguments, name: wrong(arguments[name])}, TARGETS[80])


def test_neurons_are_powers_of_two():
    arguments = catalogue.inputs("attention_head", Problem(torch.float32, 2, 64, 7, 7, middle=48))
    with pytest.raises(KernelInputError, match="128 and 48 neurons"):
        catalogue.plan("attention_head", arguments, TARGETS[80])


@pytest.mark.parametrize("name", KERNELS)
def test_no_tiles_need_no_launch(name):
    if name == "aggregate_tiles":
        pytest.skip("its slides, not its tiles, are programs")
    for dtype in catalogue.dtypes(name):
        arguments = catalogue.inputs(name, Problem(dtype, 0, 64, 7, 7, tile_px=32))
        assert all(0 in launch.grid for launch in catalogue.plan(name, arguments, TARGETS[80]).launches)
