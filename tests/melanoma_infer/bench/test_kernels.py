"""Kernels timed at a bundle's sizes: their rows, and the sentence made from them."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from melanoma_infer.bench.compare import changes
from melanoma_infer.bench.kernels import conclusion, headline, sizes_of, time_kernels
from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.errors import UsageError
from mminfer_kernels.catalogue import KERNELS


@pytest.fixture(scope="module")
def card():
    return open_bundle("demo").card


@pytest.fixture(scope="module")
def rows(card):
    small = replace(sizes_of(card, 2, "bf16"), tile_px=64, height=2, width=2)
    return list(time_kernels(small, "bf16", "cpu"))


def test_the_sizes_are_those_of_the_network(card):
    problem = sizes_of(card, 3, "fp32")
    assert problem.shape == "3x512x16x16"  # 16 · 32 channels, 512 / 32 pixels
    assert (problem.tile_px, problem.classes) == (512, 4)


def test_another_network_has_no_kernels(card):
    with pytest.raises(UsageError, match="demo"):
        sizes_of(card.model_copy(update={"network": None}), 1, "fp32")


def test_every_kernel_is_timed_and_one_that_takes_another_type_alone_gets_that(rows):
    alone = {"attention_head": "fp32", "aggregate_tiles": "int64", "block_means": "uint8", "resize_tiles": "uint8"}
    assert {(row.kernel, row.precision) for row in rows} == {(name, alone.get(name, "bf16")) for name in KERNELS}


def test_rates_and_ratios_are_those_of_the_medians(rows):
    tail = [row for row in rows if row.kernel == "attention_tail"]
    plain, written = (next(row for row in tail if row.provider == name) for name in ("torch", "as-written"))
    assert plain.ratio_to_torch == 1
    assert written.ratio_to_torch == pytest.approx(written.tiles_per_s / plain.tiles_per_s)
    for row in rows:
        assert 0 < row.p20 <= row.tiles_per_s <= row.p80
        assert row.max_error <= row.allowed_error
        assert row.share_of_copy > 0


def test_the_sentence_is_about_a_kernel_and_says_so_where_none_ran(rows):
    assert headline(rows) is None
    assert "No kernel ran" in conclusion(rows)
    plain = next(row for row in rows if row.kernel == "attention_tail")
    tail = replace(plain, provider="kernel", device="a GPU", tiles_per_s=1234.0, ratio_to_torch=3.2, share_of_copy=0.8)
    tail = replace(tail, plan="split")
    other = replace(rows[-1], provider="kernel")
    assert conclusion([other, *rows, tail, replace(tail, plan="attention_tail", tiles_per_s=99.0)]) == (
        "attention_tail (plan split) on a GPU: 1234 tiles/s of bf16 maps, 3.2 × plain PyTorch, at 80% of the speed of "
        "a copy."
    )
    assert tail.cells[:2] == ("attention_tail", "kernel, split")


def test_a_plan_is_compared_with_the_same_plan_of_the_earlier_run(rows):
    tail = replace(rows[0], kernel="attention_tail", provider="kernel", plan="split")
    before = [asdict(row) for row in (replace(tail, plan="attention_tail", tiles_per_s=1.0), tail)]
    run = {"tile_px": 512, "threads": 1}
    (change,) = changes({**run, "rows": [asdict(tail)]}, {**run, "rows": before})
    assert change.ratio == 1
    assert change.name.startswith("attention_tail kernel split uint8 ")
