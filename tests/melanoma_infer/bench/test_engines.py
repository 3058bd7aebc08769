"""`mminfer bench engines`: one row per engine with its difference from the sealed outputs, and checkable figures."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from melanoma_infer.bench import engines as engines_module
from melanoma_infer.bench import roofline as roofline_module
from melanoma_infer.bench.child import best_variant
from melanoma_infer.bench.engines import EngineRow, fastest, of_engines, time_engines
from melanoma_infer.bench.roofline import MatrixProducts, Roofline, matrix_products, roofline
from melanoma_infer.bench.subjects import BEST, COMPILED, NCHW, Subject, Variant, subjects
from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines.torch_engine import network_of

OPENVINO = Subject("openvino", "openvino", "fp32")
PUBLISHED = Subject(NCHW, "torch", "fp32", (Variant(4, channels_last=False),))


@pytest.fixture(scope="module")
def demo():
    return open_bundle("demo")


@pytest.fixture(scope="module")
def timed(demo):
    """Rows and skipped subjects of a run that is as short as possible."""
    broken = Subject("torch", "torch", "int8")
    return time_engines(demo, "demo", [PUBLISHED, OPENVINO, broken], threads=1, rounds=3, seconds=0.01)


def test_each_is_timed_and_compared_with_the_sealed_outputs(timed):
    rows, _ = timed
    assert [(row.engine, row.precision, row.batch) for row in rows] == [(NCHW, "fp32", 4), ("openvino", "fp32", 1)]
    assert all(row.within_tolerance and row.p999_dp < 1e-5 for row in rows)
    assert all(0 < row.p20 <= row.tiles_per_s <= row.p80 for row in rows)
    assert rows[0].ratio_to_nchw == 1
    assert [row.ratio_to_best for row in rows] == [None, None]


def test_what_does_not_run_here_is_skipped_with_the_reason(timed):
    assert list(timed[1]) == ["torch int8"]
    assert "fp32" in timed[1]["torch int8"]


def test_ratios_are_within_the_same_round(demo, monkeypatch):
    """Noise that affects all subjects of a round equally does not change the ratio."""

    class Fake:
        def __init__(self, subject, *_):
            golden = demo.golden.outputs["probabilities"].tolist()
            self.subject = subject
            self.facts = {"batch": 1, "layout": "", "probabilities": golden}
            self.noise = iter((1.0, 0.1, 5.0))

        def repeat(self):
            return next(self.noise) * (12.0 if self.subject is OPENVINO else 2.0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(engines_module, "Timed", Fake)
    best = replace(PUBLISHED, name=BEST)
    rows, _ = time_engines(demo, "demo", [PUBLISHED, best, OPENVINO], threads=1, rounds=3)
    assert (rows[2].ratio_to_nchw, rows[2].ratio_to_best, rows[2].tiles_per_s) == (6.0, 6.0, 12.0)


def test_a_fast_engine_with_wrong_numbers_is_never_the_fastest(demo):
    wrong = {**demo.golden.outputs, "probabilities": np.roll(demo.golden.outputs["probabilities"], 1, 1)}
    elsewhere = replace(demo, golden=replace(demo.golden, outputs=wrong))
    rows, _ = time_engines(elsewhere, "demo", [OPENVINO], threads=1, rounds=1, seconds=0.01)
    assert not rows[0].within_tolerance
    assert fastest(rows) is None


def test_plain_pytorch_is_not_an_engine_that_score_runs():
    row = EngineRow(NCHW, "fp32", 4, "", 99.0, 99.0, 99.0, 1.0, None, 0.0, within_tolerance=True)
    ours = replace(row, engine="openvino", tiles_per_s=1.0)
    assert of_engines([row, ours]) == [ours]


def test_a_process_that_dies_is_skipped(demo, monkeypatch):
    monkeypatch.setattr(engines_module, "CHILD", "melanoma_infer.bench.nothing_of_this_name")
    assert time_engines(demo, "demo", [OPENVINO], threads=1, rounds=1) == (
        [],
        {"openvino fp32": "its process died"},
    )


def test_every_precision_of_the_bundle_is_timed(demo):
    names = [subject.key for subject in subjects(demo)]
    assert names[:2] == [(NCHW, "fp32"), (BEST, "fp32")]
    assert {("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "int8")} <= set(names)
    assert not any(name in (NCHW, BEST) for name, _ in (each.key for each in subjects(replace(demo, weights=None))))


def test_the_gflop_per_tile_are_those_of_the_network_s_layers(demo):
    """Counted again by hooks on the network; the head's projection of each of 16 × 16 pixels is not a layer."""
    net, counted = network_of(demo), []

    def count(module, _inputs, output):
        counted.append(2 * output.numel() * module.weight[0].numel())

    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.from_numpy(demo.golden.tiles[:1]))
    products = matrix_products(["fp32"], 1)
    products.time()
    limit = roofline(demo, products.gflops)
    projection = 2 * 16 * 16 * net.w1_image.numel()
    assert (sum(counted) + projection) / 1e9 == pytest.approx(limit.gflop_a_tile, rel=0.001)
    assert limit.copy_bytes_per_s > 1e8
    assert limit.peak_gflops["fp32"] > 1
    assert limit.weight_bytes == pytest.approx(sum(p.numel() for p in net.parameters()) * 4, rel=0.05)


def test_the_peak_is_the_highest_throughput_so_far(monkeypatch):
    seconds = iter([0.2, 0.1, 0.4])
    monkeypatch.setattr(roofline_module, "_seconds", lambda _call: next(seconds))
    products, reached = MatrixProducts({"fp32": [lambda: None]}), []
    for _ in range(3):
        products.time()
        reached.append(products.gflops["fp32"] * 0.1 / (2 * roofline_module.SIDE**3 / 1e9))
    assert reached == pytest.approx([0.5, 1.0, 1.0])


def test_matrix_products_take_turns_with_the_engines(demo):
    turns = []
    time_engines(demo, "demo", [OPENVINO], threads=1, rounds=2, seconds=0.01, each_round=lambda: turns.append(1))
    assert len(turns) == 2


def test_the_share_of_peak_is_the_work_per_second_over_the_peak():
    limit = Roofline(2.0, 0, {"fp32": 100.0}, 1.0)
    assert limit.share("fp32", 25.0) == 0.5
    assert limit.share("int8", 25.0) is None


def test_thebest_variant_has_the_layout_that_is_faster_at_the_middle_batch_size():
    seconds = {(1, True): 2.0, (4, True): 3.0, (8, True): 1.0, (1, False): 0.5, (4, False): 4.0, (8, False): 5.0}
    asked = []

    def seconds_per_tile(variant):
        asked.append(variant)
        return seconds[variant.batch, variant.channels_last]

    variants = [Variant(batch, last) for batch in (1, 4, 8) for last in (True, False)]
    assert best_variant(variants, seconds_per_tile) == Variant(8, channels_last=True)
    assert len(set(asked)) == 4


def test_other_work_during_one_turn_does_not_decide():
    slow, fast = Variant(4, channels_last=False), Variant(4, channels_last=True)
    seconds = {slow: iter([1.0] * 9), fast: iter([3.0] + [0.5] * 8)}
    assert best_variant([slow, fast], lambda variant: next(seconds[variant])) == fast


def test_torch_compile_is_timed_only_on_request(demo):
    assert COMPILED not in {each.name for each in subjects(demo)}
    compiled = [each for each in subjects(demo, compiled=True) if each.name == COMPILED]
    assert {each.precision for each in compiled} >= {"fp32"}
    assert all(each.compiled and len(each.variants) == 1 for each in compiled)


@pytest.mark.slow  # half a minute of a C++ compiler
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_torch_compile_gives_the_golden_outputs(demo):
    wanted = [each for each in subjects(demo, compiled=True) if each.name == COMPILED and each.precision == "fp32"]
    rows, left_out = time_engines(demo, "demo", wanted, threads=2, rounds=1, seconds=0.01)
    assert not left_out
    assert rows[0].p999_dp <= 1e-5
