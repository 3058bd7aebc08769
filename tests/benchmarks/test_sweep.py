"""The sweep: candidates around what runs now, whose grids follow; what spills is not timed, what is wrong ends it."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import sweep

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.errors import KernelError
from mminfer_kernels.launch import TARGETS, LaunchConfig, Planned

SMALL = Problem(torch.float16, 1, 128, 8, 8)
NOW = LaunchConfig(4, 1, {"BLOCK_P": 32, "BLOCK_K": 4}, "because")


def test_candidates_are_what_is_used_now_and_half_and_twice_of_it():
    found = list(sweep.candidates(NOW))
    assert NOW in found
    assert {each.num_warps for each in found} == {2, 4, 8}
    assert {each.blocks["BLOCK_P"] for each in found} == {16, 32, 64}
    assert {each.blocks["BLOCK_K"] for each in found} == {4}
    assert len(found) == 3 * 3 * 3


def test_the_grid_of_a_candidate_follows_and_the_product_is_as_before():
    arguments = catalogue.inputs("attention_project", SMALL)
    now = catalogue.plan("attention_project", arguments, TARGETS[80]).launches[0]
    wide = replace(now.config, blocks={**now.config.blocks, "BLOCK_P": 16})
    changed = sweep.planned_with("attention_project", arguments, TARGETS[80], now.config, wide).launches[0]
    assert (now.grid, changed.grid) == ((2, 1, 1), (4, 1, 1))
    assert changed.constants["BLOCK_P"] == 16
    assert catalogue.plan("attention_project", arguments, TARGETS[80]).launches[0].config == now.config


def test_without_a_gpu_the_compiler_says_what_fits(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sweep, "STAGES", (1,))
    monkeypatch.setattr(sweep, "FACTORS", (1,))
    saved = tmp_path / "sweep.csv"
    monkeypatch.setattr(
        sys, "argv", ["sweep.py", "--compile", "90", "--kernel", "attention_project", "--save", str(saved)]
    )
    assert sweep.main() == 0
    (row,) = csv.DictReader(saved.read_text().splitlines())
    assert (row["target"], row["is_current"], row["spill_bytes"], row["fits"]) == ("sm_90", "True", "0", "True")
    assert row["wgmma"] == "True"
    assert row["median_ms"] == ""
    assert "is_current=True" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("sm", "wgmma"), [(80, False), (90, True), (120, False)])
def test_the_projection_multiplies_by_wgmma_where_there_is_one(dtype, sm, wgmma):
    problem, target = Problem(dtype, 1), TARGETS[sm]
    candidate = catalogue.plan("attention_project", catalogue.inputs("attention_project", problem), target).launches[0]
    row = sweep.compiled(candidate, problem, target, is_current=True)
    assert (row.wgmma, row.fits) == (wgmma, True)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_candidate_is_timed_only_if_it_is_right(monkeypatch, factor):
    arguments = catalogue.inputs("attention_project", SMALL)
    right = catalogue.reference("attention_project", arguments, torch.float32)
    monkeypatch.setattr(Planned, "run", lambda self: tuple(factor * each for each in right))
    monkeypatch.setattr(sweep.timing, "milliseconds", lambda *_, **__: (0.1, 0.2, 0.3))
    planned = catalogue.plan("attention_project", arguments, TARGETS[80])
    row = sweep.compiled(planned.launches[0], SMALL, TARGETS[80], is_current=False)
    if factor == 1.0:
        assert sweep.timed_row(row, "attention_project", arguments, planned, SMALL).median_ms == 0.2
    else:
        with pytest.raises(KernelError, match="is wrong"):
            sweep.timed_row(row, "attention_project", arguments, planned, SMALL)


def test_the_fastest_is_named_beside_what_runs_now():
    arguments = catalogue.inputs("attention_project", SMALL)
    planned = catalogue.plan("attention_project", arguments, TARGETS[80])
    now = sweep.compiled(planned.launches[0], SMALL, TARGETS[80], is_current=True)
    slow, fast = replace(now, median_ms=0.2), replace(now, median_ms=0.1, is_current=False)
    assert sweep.best([slow, fast, replace(now, is_current=False)]) == [slow, fast]
    assert sweep.best([now]) == [now]
