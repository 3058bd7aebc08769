"""Every kernel against its plain function in float64, in Triton's interpreter."""

import itertools

import pytest
import torch

from mminfer_kernels import catalogue
from mminfer_kernels.bounds import compare
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.launch import TAIL_PIXELS, TARGETS
from mminfer_proofs import interpreted

pytestmark = pytest.mark.interpreter

DTYPES = [torch.float16, torch.float32]
SIDES = [7, 15, 16, 32]
CHANNELS = [64, 2044, 2048]
BATCHES = [0, 1, 5]
OF_A_MAP = ("spatial_attention", "attention_project", "attention_tail")


def outputs(name, arguments, sm=80):
    with interpreted.mended():
        return catalogue.outputs_of(catalogue.plan(name, arguments, TARGETS[sm]).run())


def assert_as_exact_as_torch(name, problem, *, results=None):
    arguments = catalogue.inputs(name, problem)
    results = outputs(name, arguments) if results is None else results
    truth = catalogue.reference(name, arguments)
    low = catalogue.reference(name, arguments, problem.dtype if len(catalogue.dtypes(name)) > 1 else torch.float32)
    for result, exact, torchs in zip(results, truth, low, strict=True):
        assert result.shape == exact.shape
        comparison = compare(result, exact, torchs)
        assert comparison.holds, f"{name} {problem}: {comparison}"


def sizes_of_a_map():
    """Every kernel, batch, number of channels and side that fit together.

    Each size is in a fast case: many channels, 2044 of them too, and five tiles, with maps of one block and of several.
    The other combinations take seconds and are slow.
    """
    fast = {(1, 2044, 7), (1, 2044, 15), (1, 2048, 7), (1, 2048, 16), (5, 64, 7), (5, 64, 15)}
    for name, batch, channels, side in itertools.product(OF_A_MAP, BATCHES, CHANNELS, SIDES):
        if name != "attention_tail" or side**2 <= TAIL_PIXELS:
            small = batch == 0 or batch * channels == 64 or (batch, channels, side) in fast
            yield pytest.param(name, batch, channels, side, marks=[] if small else [pytest.mark.slow])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "batch", "channels", "side"), list(sizes_of_a_map()))
def test_kernels_of_a_map_are_as_exact_as_torch(name, dtype, side, channels, batch):
    order = "max-avg" if side == 15 else "avg-max"
    assert_as_exact_as_torch(name, Problem(dtype, batch, channels, side, side, order=order))


@pytest.mark.parametrize(
    ("batch", "side"),
    [
        *itertools.product((0, 1), SIDES),
        *((5, 7), (5, 15)),
        *(pytest.param(5, side, marks=pytest.mark.slow) for side in (16, 32)),
    ],
)
def test_attention_head_is_as_exact_as_torch(side, batch):
    assert_as_exact_as_torch("attention_head", Problem(torch.float32, batch, 64, side, side))


@pytest.mark.parametrize("name", OF_A_MAP)
@pytest.mark.parametrize(("height", "width", "kernel_size", "classes"), [(1, 1, 7, 2), (5, 9, 1, 3), (3, 33, 3, 7)])
def test_odd_maps_and_kernels_are_as_exact_as_torch(name, height, width, kernel_size, classes):
    # Of few numbers PyTorch's may all be exact by chance, and chance is the machine's: eight tiles of one pixel.
    batch = 8 if height * width == 1 else 2
    problem = Problem(torch.float32, batch, 44, height, width, kernel_size=kernel_size, classes=classes)
    assert_as_exact_as_torch(name, problem)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("tile_px", [33, 64, 224])
def test_normalize_tiles_is_as_exact_as_torch(dtype, batch, tile_px):
    assert_as_exact_as_torch("normalize_tiles", Problem(dtype, batch, tile_px=tile_px))


@pytest.mark.parametrize("batch", [1, 5])
def test_aggregate_tiles_gives_the_exact_sums(batch):
    arguments = catalogue.inputs("aggregate_tiles", Problem(torch.int64, batch))
    results, expected = outputs("aggregate_tiles", arguments), catalogue.reference("aggregate_tiles", arguments)
    for result, exact in zip(results, expected, strict=True):
        assert torch.equal(result, exact)


def test_aggregating_no_slides_gives_no_sums():
    none = torch.zeros(0, dtype=torch.int64)
    nothing = {"scores": none, "offsets": torch.zeros(1, dtype=torch.int64), "ranks": none}
    assert [len(column) for column in outputs("aggregate_tiles", nothing)] == [0, 0, 0, 0]


def test_aggregates_do_not_depend_on_the_order_of_tiles():
    random = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 2**40 + 1, (1500,), generator=random)
    shuffled = scores[torch.randperm(1500, generator=random)]
    rest = {"offsets": torch.tensor([0, 1500]), "ranks": torch.tensor([18])}
    first = outputs("aggregate_tiles", {"scores": scores, **rest})
    second = outputs("aggregate_tiles", {"scores": shuffled, **rest})
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["attention_head", *OF_A_MAP])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_value_shows_in_its_own_tile_only(name, bad):
    problem = Problem(torch.float32, 3, 64, 5, 7)
    arguments = catalogue.inputs(name, problem)
    clean = outputs(name, arguments)
    poisoned = arguments["projection"].projected if name == "attention_head" else arguments["x"]
    poisoned[1, 3, 2, 4] = bad
    for before, after in zip(clean, outputs(name, arguments), strict=True):
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=0)
    finite = [bool(result[1].isfinite().all()) for result in outputs(name, arguments)]
    if name == "attention_head":  # the attention comes from the other maps
        finite.pop(1)
    if bad != bad:
        assert not any(finite)


def test_the_attentions_order_swaps_the_two_maps():
    arguments = catalogue.inputs("spatial_attention", Problem(torch.float32, 1, 64, 5, 5))
    swapped = {**arguments, "weight": arguments["weight"].flip(1), "order": "max-avg"}
    for one, other in zip(outputs("spatial_attention", arguments), outputs("spatial_attention", swapped), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sm", sorted(TARGETS))
def test_every_targets_launch_parameters_give_the_same_tail(sm):
    problem = Problem(torch.float16, 1, 96, 7, 7)
    arguments = catalogue.inputs("attention_tail", problem)
    assert_as_exact_as_torch("attention_tail", problem, results=outputs("attention_tail", arguments, sm))
