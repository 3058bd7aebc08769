"""Compiled code and what is read off it: on code whose resources are known, and on the kernels themselves."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import Problem
from mminfer_kernels.compile import compile_launch
from mminfer_kernels.launch import TARGETS
from mminfer_proofs import aot, resources

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are compiled only in a process without TRITON_INTERPRET", allow_module_level=True)

PTX = """
    ld.param.b64    %rd1, [k_param_0];
    ld.param.b64    %rd2, [k_param_1];
    mul.wide.s32    %rd3, %r1, 2;
    add.s64         %rd4, %rd1, %rd3;
    @%p1 ld.global.v4.b32 { %r2, %r3, %r4, %r5 }, [ %rd4 + 0 ];
    @%p1 cp.async.cg.shared.global [ %r9 + 0 ], [ %rd4 + 16 ], 0x10, %r8;
    add.s64         %rd5, %rd2, %rd3;
    ld.global.b16   %rs1, [ %rd5 + 0 ];
    st.global.v2.b32 [ %rd5 + 0 ], { %r2, %r3 };
"""


def test_an_access_belongs_to_the_argument_that_its_address_came_from():
    assert resources.accesses(PTX, {"x": 0, "out": 1}) == {
        "x": resources.Accesses((128, 128), ()),
        "out": resources.Accesses((16,), (64,)),
    }


@pytest.mark.parametrize(
    ("line", "bare"),
    [
        ("max.f32 %r1, %r2, %r3;", 1),
        ("min.ftz.f32 %r1, %r2, %r3;", 1),
        ("max.f16x2 %r1, %r2, %r3;", 1),
        ("max.NaN.f32 %r1, %r2, %r3;", 0),
        ("max.s32 %r1, %r2, %r3;", 0),
    ],
)
def test_a_maximum_that_drops_nan_is_seen(line, bare):
    assert resources.bare_extremes(line) == bare


@pytest.fixture(scope="module")
def tail_row():
    return aot.row_of("attention_tail", Problem(torch.float16, 1), TARGETS[80])


def test_attention_tail_is_clean_on_sm_80(tail_row):
    assert list(aot.problems(tail_row)) == []
    assert tail_row.fast_path
    assert tail_row.tensor_core
    assert 200 < tail_row.registers <= 255
    assert "x load 128" in tail_row.accesses


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"stack_bytes": 8}, "8 bytes of stack and 0 of spills on the fast path"),
        ({"spill_bytes": 4}, "0 bytes of stack and 4 of spills on the fast path"),
        ({"fast_path": False, "stack_bytes": 40}, "40 bytes of stack"),
        ({"fast_path": False, "stack_bytes": 8, "stack_in_loop": True}, "8 bytes of stack, touched by a loop"),
        ({"x_load_bits": 64}, "reads x by 64 bits on the fast path"),
        ({"tensor_core": False}, "multiplies without tensor cores"),
        ({"shared_bytes": 2**20}, f"{2**20} bytes of shared memory, of {163 * 1024}"),
        ({"nan_safe": False}, "a maximum or minimum drops NaN"),
        ({"tf32": True}, "float32 is rounded to TF32"),
    ],
)
def test_what_a_row_must_not_show_is_named(tail_row, change, problem):
    assert problem in list(aot.problems(replace(tail_row, **change)))


def test_stack_in_a_loop_is_seen_in_machine_code():
    """The same kernel with blocks that do not fit its registers."""
    launch = next(
        launch for launch in aot.launches(Problem(torch.float16, 1), TARGETS[80]) if launch.name == "attention_tail"
    )
    blocks = {**launch.config.blocks, "BLOCK_C": 64}
    crowded = replace(
        launch,
        config=replace(launch.config, num_warps=4, blocks=blocks),
        constants={**launch.constants, **blocks},
    )
    code = resources.machine_code(compile_launch(crowded, TARGETS[80]).cubin)
    assert code.spill_bytes > 0
    assert code.stack_bytes > 0
    assert code.stack_in_loop


@pytest.mark.parametrize("name", sorted({*aot.READING_MAPS} - {"attention_tail"}))
def test_streaming_kernels_are_clean_in_half_precision(name):
    row = aot.row_of(name, Problem(torch.float16, 1), TARGETS[89])
    assert list(aot.problems(row)) == []
    assert row.fast_path


@pytest.mark.parametrize("name", ["attention_head", "aggregate_tiles", "attention_project"])
def test_kernels_in_float32_are_clean(name):
    assert list(aot.problems(aot.row_of(name, Problem(catalogue.dtypes(name)[-1], 1), TARGETS[80]))) == []


@pytest.mark.parametrize("name", catalogue.OF_PIXELS)
def test_kernels_of_pixels_need_no_stack(name):
    row = aot.row_of(name, Problem(torch.uint8, 1, native_px=256, block_px=4, tile_px=64), TARGETS[120])
    assert list(aot.problems(row)) == []
    assert (row.pixels, row.channels) == ("256-64-k4x4", None)
    assert (row.stack_bytes, row.spill_bytes) == (0, 0)
    assert list(aot.problems(replace(row, stack_bytes=8))) == ["8 bytes of stack and 0 of spills on the fast path"]


def test_every_kernel_is_compiled_for_every_target():
    compiled = {(name, problem.dtype, target.sm) for name, problem, target in aot.matrix()}
    for name in aot.READING_MAPS:
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            assert {sm for kernel, type_, sm in compiled if (kernel, type_) == (name, dtype)} == set(TARGETS)
    for name in ("attention_head", "aggregate_tiles", *catalogue.OF_PIXELS):
        assert {sm for kernel, _, sm in compiled if kernel == name} == set(TARGETS)


def test_compiling_needs_the_interpreter_off(tmp_path):
    command = [sys.executable, "-m", "mminfer_proofs.aot", "--save", str(tmp_path / "rows.csv")]
    environment = {"PYTHONPATH": ":".join(sys.path), "TRITON_INTERPRET": "1"}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "unset TRITON_INTERPRET" in refused.stderr


def compile_everything(tmp_path, path):
    rows, folder = tmp_path / "rows.csv", tmp_path / "cubins"
    command = [sys.executable, "-m", "mminfer_proofs.aot", "--save", str(rows), "--cubins", str(folder)]
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with rows.open() as file:
        assert len(list(csv.DictReader(file))) == len(aot.matrix()) == len(list(folder.glob("*.cubin")))
    return done.stdout


@pytest.mark.slow
def test_everything_compiles_cleanly(tmp_path):
    compile_everything(tmp_path, ":".join(sys.path))


@pytest.mark.slow
def test_everything_compiles_cleanly_with_the_newest_triton(tmp_path):
    newest = tmp_path / "newest"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(newest), "triton>=3.9"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no newer triton could be installed: there is no package index")
    stdout = compile_everything(tmp_path, ":".join([str(newest), *sys.path]))
    assert "triton 3.7.1" not in stdout
    shutil.rmtree(newest)
