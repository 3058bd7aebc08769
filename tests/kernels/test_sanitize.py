"""The command that sanitizes every kernel: its rows, what it calls wrong, and that it finds code that is."""

import csv
import os
import re
from dataclasses import replace

import pytest
import torch

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.compile import compile_launch
from mminfer_proofs import sanitize, sanitize_report
from mminfer_proofs.sanitize import Case
from mminfer_proofs.sanitize_report import Result, Row

if os.environ.get("TRITON_INTERPRET", "0") != "0":
    pytest.skip("kernels are compiled only in a process without TRITON_INTERPRET", allow_module_level=True)

COLUMNS = (
    "kernel,launch,dtype,target,shape,faults,max_error,allowed_error,loaded_bytes,stored_bytes,sectors,ideal_sectors,"
    "wavefronts,ideal_wavefronts,wavefronts_per_tile,ideal_wavefronts_per_tile,far_tile,instructions"
)
ROW = Row(
    kernel="attention_tail", launch="attention_tail", dtype="float16", target="sm_80", shape="1x64x7x7", faults=0,
    max_error=1e-7, allowed_error=1e-6, loaded_bytes=1, stored_bytes=1, sectors=1, ideal_sectors=1, wavefronts=1,
    ideal_wavefronts=1, wavefronts_per_tile=60_000, ideal_wavefronts_per_tile=1, far_tile=None, instructions=1,
)  # fmt: skip
TILES = Case("normalize_tiles", Problem(torch.float16, 2, tile_px=33))
MAP = Case("spatial_attention", Problem(torch.bfloat16, 2, 44, 5, 7, kernel_size=3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"max_error": 2e-6}, ["an error of 2.00e-06, above 1.00e-06"]),
        ({"max_error": float("nan")}, ["an error of nan, above 1.00e-06"]),
        ({"max_error": None}, []),
        ({"wavefronts_per_tile": 60_001}, ["60,001 wavefronts a tile, above 60,000"]),
        ({"wavefronts_per_tile": 60_001, "dtype": "float32"}, []),
        ({"wavefronts_per_tile": 60_001, "kernel": "attention_project"}, []),
    ],
)
def test_a_row_that_shows_too_much_is_wrong(change, words):
    assert list(sanitize_report.breaches(replace(ROW, **change))) == words


def test_a_case_has_a_row_a_launch_and_target():
    result = sanitize.run_case(MAP)
    assert result.problems == ()
    assert [(row.launch, row.target) for row in result.rows] == [
        (launch, target)
        for target in ("sm_80", "sm_86 not run: same code as sm_80", "sm_89 not run: same code as sm_80")
        for launch in ("channel_pool", "spatial_attention")
    ]
    first, second = result.rows[:2]
    assert first.max_error is None
    assert 0 < second.max_error <= second.allowed_error
    assert first.loaded_bytes == 2 * 44 * 35 * 2
    assert (first.stored_bytes, second.stored_bytes) == (2 * 2 * 35 * 4, 2 * 44 * 35 * 2 + 2 * 35 * 4)
    assert first.sectors >= first.ideal_sectors > 0
    assert (first.wavefronts_per_tile, first.far_tile) == (first.wavefronts // 2, None)
    assert all(replace(row, target="sm_80") in (first, second) for row in result.rows)


@pytest.mark.parametrize(("kernel", "least"), [("normalize_tiles", 40_000), ("aggregate_tiles", 2**32)])
def test_a_case_looks_at_a_far_tile(kernel, least):
    dtype = catalogue.dtypes(kernel)[-1]
    result = sanitize.run_case(Case(kernel, Problem(dtype, 1, tile_px=64), far=True))
    assert result.problems == ()
    assert all(row.far_tile >= least for row in result.rows)


def test_code_that_is_at_fault_is_found(monkeypatch):
    def unguarded(launch, target):
        compiled = compile_launch(launch, target)
        return replace(compiled, ptx=re.sub(r"@%p\d+ st\.global", "st.global", compiled.ptx))

    monkeypatch.setattr(sanitize, "compile_launch", unguarded)
    result = sanitize.run_case(Case("normalize_tiles", Problem(torch.float16, 1, tile_px=33)))
    assert [row.faults for row in result.rows] == [1, 1, 1]
    assert all(row.max_error is None for row in result.rows)
    (problem,) = result.problems
    assert "normalize_tiles float16 1x3x33x33 sm_80, normalize_tiles: memcheck: " in problem
    assert "1 problems" in sanitize_report.report([result])


def test_code_that_computes_something_else_is_found(monkeypatch):
    def shifted(launch, target):
        compiled = compile_launch(launch, target)
        return replace(compiled, ptx=compiled.ptx.replace("sub.f32", "add.f32"))

    monkeypatch.setattr(sanitize, "compile_launch", shifted)
    result = sanitize.run_case(TILES)
    assert result.problems == ()
    assert "an error of" in sanitize_report.report([result])


def test_a_table_shows_what_was_run_once_with_its_targets():
    same = [replace(ROW, target=f"sm_{sm} not run: same code as sm_80") for sm in (86, 89)]
    text = sanitize_report.report([Result((ROW, *same), notes=("as expected", "as expected"))])
    assert text.count("1x64x7x7") == 1
    assert "sm_80/86/89" in text
    assert text.count("as expected") == 1
    assert "3 launches, no problems." in text
    assert "Not covered:\n  wgmma" in text


def test_the_command_saves_rows_and_prints_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sanitize, "cases", lambda: [TILES])
    assert sanitize.main(["--save", str(tmp_path / "rows.csv"), "--jobs", "1"]) == 0
    assert (tmp_path / "rows.csv").read_text().splitlines()[0] == COLUMNS
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"][:5] for row in rows] == ["sm_80", "sm_86", "sm_89"]
    assert {(row["shape"], row["faults"], row["stored_bytes"]) for row in rows} == {("2x3x33x33", "0", "13068")}
    assert "3 launches, no problems." in capsys.readouterr().out


def test_the_command_refuses_the_interpreter(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(SystemExit) as caught:
        sanitize.main(["--save", str(tmp_path / "rows.csv")])
    assert caught.value.code == 2
    assert "unset TRITON_INTERPRET" in capsys.readouterr().err


@pytest.mark.slow
def test_every_kernel_is_without_faults_and_as_exact_as_torch():
    results = sanitize.run_all(sanitize.cases(), len(os.sched_getaffinity(0)))
    assert [problem for result in results for problem in result.problems] == []
    rows = [row for result in results for row in result.rows]
    assert {row.target[:5] for row in rows} == {"sm_80", "sm_86", "sm_89"}
    assert all(row.max_error <= row.allowed_error for row in rows if row.max_error is not None)
    assert all(row.far_tile for row in rows if "2048" in row.shape)
