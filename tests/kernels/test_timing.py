"""Kernels are timed only where their answers are right."""

import pytest
import torch

from mminfer_kernels import catalogue, timing
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.errors import KernelError


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
