"""Kernels are timed only where their answers are right."""

from functools import partial

import pytest
import torch
from triton import testing

from mminfer_kernels import catalogue, timing
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.errors import KernelError
from mminfer_kernels.launch import TARGETS, Launch


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch):
    monkeypatch.setattr(timing, "REPEATS", 5)


@pytest.mark.parametrize("name", KERNELS)
def test_a_row_a_provider_with_ordered_times(name):
    dtype = catalogue.dtypes(name)[-1]
    rows = list(timing.measure(name, Problem(dtype, 2, 12, 5, 3, tile_px=8, features=16, middle=16), "cpu"))
    assert [row.provider for row in rows] == (["torch", "as-written"] if name == "attention_tail" else ["torch"])
    assert all(0 < row.p20_ms <= row.median_ms <= row.p80_ms for row in rows)


def test_a_wrong_answer_is_not_timed(monkeypatch):
    right = catalogue.reference
    calls = []

    def wrong_when_timed(name, arguments, dtype=torch.float64):
        calls.append(dtype)
        average, maximum, projected = right(name, arguments, dtype)
        return average, maximum, projected * (1.001 if len(calls) > 2 else 1)  # after the truth and its measure

    problem = Problem(torch.float32, 2, 12, 5, 3, features=16, middle=16)
    monkeypatch.setattr(catalogue, "reference", wrong_when_timed)
    with pytest.raises(KernelError, match="attention_project by torch is wrong"):
        list(timing.measure("attention_project", problem, "cpu"))


@pytest.mark.parametrize(
    ("processors", "side", "plans"),
    [(0, 7, ["attention_tail", "split"]), (132, 7, ["split", "attention_tail"]), (0, 17, ["split"])],
    ids=["small-gpu", "h100", "large-map"],
)
def test_each_plan_of_the_tail_is_timed_by_its_own_launches_the_operator_s_first(monkeypatch, processors, side, plans):
    """On an H100 the operator splits 8 tiles: the row named attention_tail timed two other kernels."""
    launched = []
    monkeypatch.setattr(Launch, "run", lambda launch: launched.append(launch.name))
    arguments = catalogue.inputs("attention_tail", Problem(torch.float16, 8, 64, side, side))
    calls = timing.kernel_calls("attention_tail", arguments, TARGETS[90], processors)
    assert list(calls) == plans
    kernels = {"attention_tail": ["attention_tail"], "split": ["attention_project", "attention_head"]}
    for plan, call in calls.items():
        launched.clear()
        call()
        assert launched == kernels[plan]


def test_the_row_of_another_function_has_no_plan():
    problem = Problem(torch.float32, 2, 12, 5, 3, features=16, middle=16)
    arguments = catalogue.inputs("attention_project", problem)
    assert list(timing.kernel_calls("attention_project", arguments, TARGETS[90], 132)) == [None]
    assert [row.plan for row in timing.measure("attention_tail", problem, "cpu")] == [None, None]


def test_a_gpu_replays_a_graph_so_that_the_host_is_not_timed(monkeypatch):
    used = []

    def bench(name, call, quantiles):
        used.append((name, call()))
        return quantiles

    for name in ("do_bench", "do_bench_cudagraph"):
        monkeypatch.setattr(testing, name, partial(bench, name))
    assert timing.milliseconds(lambda: "a kernel", "cuda") == (0.2, 0.5, 0.8)
    timing.milliseconds(lambda: "a read of the GPU", "cuda", in_graph=False)
    assert used == [("do_bench_cudagraph", "a kernel"), ("do_bench", "a read of the GPU")]


def test_only_what_reads_on_the_host_is_timed_without_a_graph(monkeypatch):
    """PyTorch refuses to capture such a read."""
    timed = {}

    def milliseconds(call, device, *, in_graph):
        timed[name] = in_graph
        return 1.0, 1.0, 1.0

    monkeypatch.setattr(timing, "milliseconds", milliseconds)
    read = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: read.append(name) or tolist(tensor))
    for name in KERNELS:
        dtype = catalogue.dtypes(name)[-1]
        list(timing.measure(name, Problem(dtype, 2, 12, 5, 3, tile_px=8, features=16, middle=16), "cpu"))
    assert [name for name, in_graph in timed.items() if not in_graph] == sorted(set(read)) == ["aggregate_tiles"]
