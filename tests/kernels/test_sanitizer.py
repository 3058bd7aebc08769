"""The sanitizer: on PTX that does one forbidden thing each; its instructions against NumPy; and on the kernels."""

import os
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from mminfer_kernels import bounds, catalogue
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.compile import compile_launch
from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.launch import TARGETS, Launch, LaunchConfig
from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer import Far, execute
from mminfer_proofs.sanitizer.far_tiles import check_far_tile, far_tile
from mminfer_proofs.sanitizer.storage import arguments_of, run_launch, storage_of, tensor_like

if os.environ.get("TRITON_INTERPRET", "0") != "0":
    pytest.skip("kernels are compiled only in a process without TRITON_INTERPRET", allow_module_level=True)

THREADS = 64
SHARED_BYTES = 1024
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

HEADER = """
.version 8.7
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry k(
    .param .u64 .ptr .global .align 1 k_param_0,
    .param .u64 .ptr .global .align 1 k_param_1,
    .param .u64 .ptr .global .align 1 k_param_2
)
.reqntid 64
{
    .reg .pred  %p<9>;
    .reg .b16   %rs<9>;
    .reg .b32   %r<99>;
    .reg .b64   %rd<9>;
    ld.param.b64  %rd1, [k_param_0];
    ld.param.b64  %rd2, [k_param_1];
    mov.u32       %r1, %tid.x;
    mul.wide.u32  %rd3, %r1, 4;
    add.s64       %rd4, %rd1, %rd3;     // the thread's number in x
    add.s64       %rd5, %rd2, %rd3;     // and in out
    mov.b32       %r2, global_smem;
    shl.b32       %r3, %r1, 2;
    add.s32       %r4, %r2, %r3;        // and in shared memory
    xor.b32       %r5, %r4, 128;        // and that of the same thread of the other warp
    setp.lt.u32   %p1, %r1, 32;         // of the first warp
    setp.lt.u32   %p2, %r1, 5;          // of a part of it
"""


def ptx(body):
    return HEADER + body + "\n ret;\n}\n"


def run(body, *, programs=1, x=None, out=None, **options):
    """The execution of a body for two warps, which reads x and writes out, by default 64 numbers of 32 bits each."""
    x = np.arange(THREADS, dtype=np.uint32) if x is None else x
    out = np.zeros(THREADS, np.uint32) if out is None else out
    options.setdefault("stored", ["out"])
    return execute(ptx(body), {"x": x, "out": out}, (programs, 1, 1), SHARED_BYTES, **options)


def results(body, x, dtype=np.uint32):
    """The numbers of out, viewed as a dtype, for a body that computes %r20 from %r10, a number of x."""
    whole = "ld.global.b32 {%r10}, [%rd4+0];" + body + "st.global.b32 [%rd5+0], {%r20};"
    given = np.resize(np.asarray(x), THREADS)
    return run(whole, x=given).outputs["out"].view(dtype)[: len(x)]


def assert_fault(check, words, body, **options):
    with pytest.raises(KernelFault) as caught:
        run(body, **options)
    assert str(caught.value).startswith(f"{check}: "), caught.value
    assert words in str(caught.value), caught.value


# Global memory


def test_what_a_launch_writes_comes_back_and_its_arguments_stay():
    x, out = np.arange(THREADS, dtype=np.uint32), np.zeros(THREADS, np.uint32)
    done = run("ld.global.b32 {%r10}, [%rd4+0]; st.global.b32 [%rd5+0], {%r10};", x=x, out=out)
    np.testing.assert_array_equal(done.outputs["out"], x)
    assert list(done.outputs) == ["out"]
    assert out.sum() == 0
    assert (done.loaded_bytes, done.stored_bytes) == ({"x": 256}, {"out": 256})
    assert (done.sectors, done.ideal_sectors) == ({"x": 8, "out": 8}, {"x": 8, "out": 8})
    assert done.unwritten == {"out": 0}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("ld.global.b32 {%r10}, [%rd4+4];", "4 bytes at x + 256, where x is nearest and has 256 bytes"),
        ("ld.global.b32 {%r10}, [%rd4+-4];", "4 bytes at x - 4,"),
        ("st.global.b32 [%rd5+4], {%r1};", "out + 256,"),
        ("ld.global.v4.b32 {%r10,%r11,%r12,%r13}, [%rd1+252];", "no multiple of 16"),
        ("ld.global.b32 {%r10}, [%rd4+2];", "no multiple of 4"),
        ("ld.global.b32 {%r10}, [%rd3+0];", "nearest"),
        ("st.global.b32 [%rd4+0], {%r1};", "a store to x"),
        ("ld.param.b64 %rd6, [k_param_2]; ld.global.b32 {%r10}, [%rd6+0];", "nearest"),
    ],
)
def test_an_access_outside_its_argument_is_found(body, words):
    assert_fault("memcheck", words, body)


def test_the_last_bytes_of_an_access_count_too():
    assert_fault("memcheck", "8 bytes at x + 248", "ld.global.b64 {%rd6}, [%rd1+248];", x=np.zeros(252, np.uint8))


def test_a_thread_that_a_guard_holds_back_touches_nothing():
    guarded = "@%p2 ld.global.b32 {%r10}, [%rd4+236]; @!%p2 ld.global.b32 {%r10}, [%rd4+0];"
    assert run(guarded).loaded_bytes == {"x": 4 * 5 + 4 * 59}


def test_a_fault_names_argument_thread_statement_and_program():
    with pytest.raises(KernelFault, match=r"x.*thread 63 \(warp 1\), one of 1, in `ld\.global.*`.*Program \(0, 0, 0\)"):
        run("ld.global.b32 {%r10}, [%rd4+4];")


def test_what_is_stored_may_be_read_only_after_it_is_written():
    assert_fault("initcheck", "out + 0 is read before", "ld.global.b32 {%r10}, [%rd5+0];")
    run("st.global.b32 [%rd5+0], {%r1}; ld.global.b32 {%r10}, [%rd5+0];")


def test_bytes_that_nothing_writes_are_counted():
    assert run("@%p2 st.global.b32 [%rd5+0], {%r1};").unwritten == {"out": 4 * 59}


def test_two_programs_that_write_one_byte_are_found():
    assert_fault("racecheck", "written by two programs", "st.global.b32 [%rd5+0], {%r1};", programs=2)


def test_a_program_that_reads_what_another_wrote_is_found():
    body = """mov.u32 %r6, %ctaid.x; setp.eq.b32 %p3, %r6, 0;
    @%p3 st.global.b32 [%rd5+0], {%r1}; @!%p3 ld.global.b32 {%r7}, [%rd5+0];"""
    assert_fault("racecheck", "another program wrote it", body, programs=2)


def test_two_warps_that_share_global_bytes_need_a_barrier():
    write = "xor.b32 %r6, %r3, 128; cvt.u64.u32 %rd6, %r6; add.s64 %rd6, %rd2, %rd6; st.global.b32 [%rd6+0], {%r1};"
    assert_fault("racecheck", "another warp wrote it", write + "ld.global.b32 {%r7}, [%rd5+0];")
    run(write + "bar.sync 0; ld.global.b32 {%r7}, [%rd5+0];")
    run(write + "ld.global.b32 {%r7}, [%rd5+0];", races=False)


def test_one_address_with_two_values_is_found():
    assert_fault("racecheck", "two values at once", "st.global.b32 [%rd2+0], {%r1};")
    run("st.global.b32 [%rd2+0], {%r2};")


# Shared memory


@pytest.mark.parametrize(
    ("check", "words", "body"),
    [
        ("memcheck", "outside the 1,024 bytes", "ld.shared.b32 %r10, [%r4+1000];"),
        ("memcheck", "outside the 1,024 bytes", "ld.shared.b32 %r10, [%r4+-4];"),
        ("memcheck", "no multiple of 8", "st.shared.v2.b32 [%r4+4], {%r1,%r1};"),
        ("initcheck", "read before it is written", "ld.shared.b32 %r10, [%r4];"),
        ("initcheck", "read before it is written", "st.shared.b32 [%r4], %r1; ld.shared.b32 %r10, [%r4+4];"),
        ("racecheck", "another warp wrote it", "st.shared.b32 [%r4], %r1; ld.shared.b32 %r10, [%r5];"),
        ("racecheck", "two values at once", "st.shared.b32 [%r2], %r1;"),
        (
            "racecheck",
            "another warp read or wrote it",
            "st.shared.b32 [%r4], %r1; bar.sync 0; ld.shared.b32 %r10, [%r5]; st.shared.b32 [%r4], %r1;",
        ),
        (
            "racecheck",
            "another warp read or wrote it",
            "@%p1 st.shared.b32 [%r4], %r1; @!%p1 st.shared.b32 [%r5], %r1;",
        ),
    ],
)
def test_what_is_forbidden_in_shared_memory_is_found(check, words, body):
    assert_fault(check, words, body)


def test_a_barrier_makes_other_warps_values_readable():
    body = "st.shared.b32 [%r4], %r1; bar.sync 0; ld.shared.b32 %r10, [%r5]; st.global.b32 [%rd5+0], {%r10};"
    np.testing.assert_array_equal(run(body).outputs["out"], np.arange(THREADS) ^ 32)


def test_a_read_by_many_warps_and_a_write_by_one_of_them_race():
    both = "bar.sync 0; ld.shared.b32 %r10, [%r2]; @%p2 st.shared.b32 [%r2], %r2;"
    assert_fault("racecheck", "another warp read", "@%p1 st.shared.b32 [%r4], %r1;" + both)


def test_shared_memory_of_the_next_program_is_empty():
    body = """mov.u32 %r6, %ctaid.x; setp.eq.b32 %p3, %r6, 0;
    @%p3 st.shared.b32 [%r4], %r1; @!%p3 ld.shared.b32 %r7, [%r4];"""
    assert_fault("initcheck", "Program (1, 0, 0)", body, programs=2)


COPY = "cp.async.ca.shared.global [%r4+0], [%rd4+0], 0x4; cp.async.commit_group;"


@pytest.mark.parametrize(
    ("check", "words", "body"),
    [
        ("initcheck", "while cp.async copies", COPY + "ld.shared.b32 %r10, [%r4];"),
        ("initcheck", "while cp.async copies", COPY + "cp.async.wait_group 1; ld.shared.b32 %r10, [%r4];"),
        ("initcheck", "while cp.async copies", COPY + "st.shared.b32 [%r4], %r1;"),
        ("racecheck", "another warp wrote it", COPY + "cp.async.wait_group 0; ld.shared.b32 %r10, [%r5];"),
        ("racecheck", "another warp", "st.shared.b32 [%r5], %r1;" + COPY),
        ("memcheck", "x + 256", "cp.async.ca.shared.global [%r4+0], [%rd4+4], 0x4;"),
    ],
)
def test_what_is_forbidden_in_asynchronous_copies_is_found(check, words, body):
    assert_fault(check, words, body)


def test_a_copy_that_was_waited_for_is_there():
    body = COPY + "cp.async.wait_group 0; bar.sync 0; ld.shared.b32 %r10, [%r5]; st.global.b32 [%rd5+0], {%r10};"
    np.testing.assert_array_equal(run(body).outputs["out"], np.arange(THREADS) ^ 32)


def test_a_copy_of_no_bytes_writes_zeros_and_reads_nothing():
    body = """selp.b32 %r6, 4, 0, %p2; cp.async.ca.shared.global [%r4+0], [%rd4+0], 0x4, %r6; cp.async.wait_all;
    ld.shared.b32 %r10, [%r4]; st.global.b32 [%rd5+0], {%r10};"""
    done = run(body)
    np.testing.assert_array_equal(done.outputs["out"], np.arange(THREADS) * (np.arange(THREADS) < 5))
    assert done.loaded_bytes == {"x": 20}


def test_the_oldest_groups_arrive_first():
    two = COPY + "cp.async.ca.shared.global [%r4+256], [%rd4+0], 0x4; cp.async.commit_group; cp.async.wait_group 1;"
    run(two + "ld.shared.b32 %r10, [%r4];")
    assert_fault("initcheck", "while cp.async copies", two + "ld.shared.b32 %r10, [%r4+256];")


@pytest.mark.parametrize(
    ("store", "wavefronts", "ideal"),
    [
        ("st.shared.b32 [%r4], %r1;", 1, 1),
        ("shl.b32 %r6, %r1, 3; st.shared.b32 [%r6], %r1;", 2, 1),
        ("shl.b32 %r6, %r1, 4; st.shared.v4.b32 [%r6], {%r1,%r1,%r1,%r1};", 4, 4),
        ("and.b32 %r6, %r1, 7; shl.b32 %r6, %r6, 7; st.shared.b32 [%r6], %r2;", 8, 1),
        ("st.shared.b32 [%r2], %r2;", 1, 1),
    ],
)
def test_wavefronts_are_the_words_of_the_busiest_bank(store, wavefronts, ideal):
    done = run(store)
    assert (done.wavefronts, done.ideal_wavefronts) == (2 * wavefronts, 2 * ideal)


def test_sectors_are_those_that_each_warp_touches():
    strided = "mul.wide.u32 %rd6, %r1, 32; add.s64 %rd6, %rd1, %rd6; ld.global.b32 {%r10}, [%rd6+0];"
    done = run(strided + "ld.global.b32 {%r11}, [%rd1+0];", x=np.zeros(32 * THREADS, np.uint8))
    assert (done.sectors, done.ideal_sectors) == ({"x": 64 + 2}, {"x": 8 + 2})
    assert done.loaded_bytes == {"x": 256 + 4}


# Control flow


@pytest.mark.parametrize(
    "body",
    [
        "@%p2 bra $L_1; mov.u32 %r6, 0;\n$L_1:",
        "@%p1 bra $L_1; mov.u32 %r6, 0;\n$L_1:",
        "@%p1 bar.sync 0;",
        "@%p2 ret;",
        "@%p2 shfl.sync.bfly.b32 %r6, %r1, 1, 31, -1;",
    ],
)
def test_threads_that_go_different_ways_are_found(body):
    assert_fault("synccheck", "of 64 threads", body)


def test_a_loop_runs_as_often_as_its_counter_tells():
    body = """mov.b32 %r20, 0; mov.b32 %r6, 0;
$L_1:
    add.s32 %r20, %r20, %r6; add.s32 %r6, %r6, 1; setp.ne.b32 %p3, %r6, 10; @%p3 bra $L_1;"""
    assert set(results(body, [0])) == {45}


@pytest.mark.parametrize(
    "body",
    [
        "frobnicate.b32 %r6, %r1;",
        "atom.global.add.u32 %r6, [%rd5], %r1;",
        "wgmma.fence.sync.aligned;",
        "add.rz.f32 %r6, %r1, %r1;",
        "add.f16x2 %r6, %r1, %r1;",
        "cvt.rz.f16.f32 %rs1, %r1;",
        "ld.volatile.global.b32 {%r6}, [%rd4+0];",
        "ld.local.b32 {%r6}, [%rd4+0];",
        "ld.global.v4.b64 {%rd6,%rd6,%rd6,%rd6}, [%rd1+0];",
        "mov.u32 %r6, %clock;",
        "bar.sync 1;",
        "shfl.sync.bfly.b32 %r6, %r1, 1, 31, 255;",
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r6,%r7}, {%r6,%r7}, {%r6,%r7}, {%r6,%r7};",
        "add.s32 %r6, %rd1, %r1;",
        "add.s32 %q6, %r1, %r1;",
    ],
)
def test_an_instruction_that_is_not_known_is_refused(body):
    assert_fault("unsupported", "", body)


def test_an_instruction_that_is_not_known_is_refused_though_nothing_reaches_it():
    assert_fault("unsupported", "frobnicate", "bra.uni $L_1; frobnicate.b32 %r6, %r1;\n$L_1:")


def test_numbers_among_the_arguments_are_taken_as_int32():
    code = ptx("ld.param.b32 %r6, [k_param_2]; st.global.b32 [%rd5+0], {%r6};")
    code = code.replace(".param .u64 .ptr .global .align 1 k_param_2", ".param .u32 k_param_2")
    arguments = {"x": np.zeros(1, np.uint32), "out": np.zeros(THREADS, np.int32), "n": -7}
    assert set(execute(code, arguments, (1, 1, 1), 0, stored=["out"]).outputs["out"]) == {-7}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ptx("").replace(".reqntid 64", ""), "size of its CTA"),
        (ptx("").replace(".reqntid 64", ".reqntid 48"), "48 threads"),
        (ptx(".local .align 4 .b8 stack[16];"), "local memory"),
        (ptx("").replace("global_smem[]", "global_smem[64]"), "shared memory of a fixed size"),
        (ptx("") + ptx(""), "2 kernels"),
        (ptx("bra $L_nowhere;"), "no such label"),
    ],
)
def test_a_kernel_that_cannot_be_run_is_refused(code, words):
    with pytest.raises(KernelFault, match=f"unsupported: .*{words}"):
        execute(code, {"x": np.zeros(1), "out": np.zeros(1)}, (1, 1, 1), SHARED_BYTES)


def test_names_and_numbers_of_arguments_must_fit_the_kernel():
    with pytest.raises(KernelFault, match="unsupported: nothing is to be stored"):
        execute(ptx(""), {"x": np.zeros(1)}, (1, 1, 1), SHARED_BYTES, stored=["nothing"])
    with pytest.raises(KernelFault, match="unsupported: 4 arguments for 3 parameters"):
        execute(ptx(""), dict.fromkeys("abcd", 1), (1, 1, 1), SHARED_BYTES)


# Arithmetic, against NumPy, PyTorch and whole numbers

FLOATS = np.array([0.0, -0.0, 1.0, -1.5, 1e-40, 3e38, np.inf, -np.inf, np.nan, 2.5, 1 / 3, 65520.0], np.float32)


def test_max_drops_nan_unless_told():
    other = "mov.b32 %r11, 0f3F800000;"
    expected = np.fmax(FLOATS, np.float32(1))
    np.testing.assert_array_equal(results(other + "max.f32 %r20, %r10, %r11;", FLOATS, np.float32), expected)
    kept = results(other + "max.NaN.f32 %r20, %r10, %r11;", FLOATS, np.float32)
    np.testing.assert_array_equal(kept, np.maximum(FLOATS, np.float32(1)))
    assert np.isnan(kept[8])
    assert expected[8] == 1


def test_bfloat16_is_rounded_as_pytorch_rounds():
    random = np.random.default_rng(0).integers(0, 2**32, THREADS - 8, dtype=np.uint64).astype(np.uint32)
    ties = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x7F7FFFFF, 0x80000001, 0x7F800000, 0xFF800000, 0], np.uint32)
    values = torch.from_numpy(np.concatenate((random, ties)).view(np.float32).copy()).nan_to_num(nan=1.0)
    expected = values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    one = results("cvt.rn.bf16.f32 %rs1, %r10; cvt.u32.u16 %r20, %rs1;", values.numpy())
    np.testing.assert_array_equal(one, expected)
    two = results("mov.b32 %r11, 0f3F808000; cvt.rn.bf16x2.f32 %r20, %r10, %r11;", values.numpy())
    np.testing.assert_array_equal(two, (expected.astype(np.uint32) << 16) | 0x3F80)


def test_float16_is_rounded_as_numpy_rounds():
    with np.errstate(over="ignore"):
        expected = FLOATS.astype(np.float16).view(np.uint16).astype(np.uint32)
    both = results("cvt.rn.f16x2.f32 %r20, %r11, %r10;".replace("%r11", "%r10"), FLOATS)
    np.testing.assert_array_equal(both, expected << 16 | expected)
    back = results("cvt.rn.f16.f32 %rs1, %r10; cvt.f32.f16 %r20, %rs1;", FLOATS, np.float32)
    np.testing.assert_array_equal(back, expected.astype(np.uint16).view(np.float16).astype(np.float32))


def test_a_nan_stays_one_in_bfloat16():
    assert np.isnan(results("cvt.rn.bf16.f32 %rs1, %r10; cvt.f32.bf16 %r20, %rs1;", FLOATS, np.float32)[8])


def test_fma_rounds_once():
    x = np.float32(1 + 2**-12)
    once = np.float32(np.float64(x) * np.float64(x) - 1)
    body = "mov.b32 %r11, 0fBF800000; fma.rn.f32 %r20, %r10, %r10, %r11;"
    assert results(body, [x], np.float32)[0] == once
    assert once != np.float32(x * x) - np.float32(1)


def test_flush_to_zero_takes_subnormal_numbers_for_nothing():
    tiny = np.array([1e-40, 0.25], np.float32)
    np.testing.assert_array_equal(results("cvt.rpi.ftz.f32.f32 %r20, %r10;", tiny, np.float32), [0, 1])
    np.testing.assert_array_equal(results("cvt.rpi.f32.f32 %r20, %r10;", tiny, np.float32), [1, 1])


def test_a_float_beyond_an_integers_range_becomes_its_limit():
    values = np.array([-1.9, 1.9, 3e9, -3e9, np.nan, np.inf, -np.inf], np.float32)
    whole = results("cvt.rzi.s32.f32 %r20, %r10;", values, np.int32)
    np.testing.assert_array_equal(whole, [-1, 1, 2**31 - 1, -(2**31), 0, 2**31 - 1, -(2**31)])


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [("lt", 0b001), ("ge", 0b010), ("ne", 0b011), ("neu", 0b111), ("geu", 0b110), ("equ", 0b100), ("nan", 0b100)],
)
def test_a_comparison_with_nan_is_false_unless_unordered(comparison, expected):
    values = np.array([0.5, 1.5, np.nan], np.float32)
    body = f"mov.b32 %r11, 0f3F800000; setp.{comparison}.f32 %p3, %r10, %r11; selp.b32 %r20, 1, 0, %p3;"
    found = results(body, values)
    assert [int(each) for each in found] == [expected >> bit & 1 for bit in range(3)]


INTEGERS = np.array([0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x12345678, 0x89ABCDEF], np.uint32)


def signed(value):
    return (int(value) & 0xFFFFFFFF) - ((int(value) & 0x80000000) << 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("mul.lo.s32 %r20, %r10, 1431655766;", lambda x: x * 1431655766),
        ("mul.hi.s32 %r20, %r10, 1431655766;", lambda x: signed(x) * 1431655766 >> 32),
        ("mul.hi.u32 %r20, %r10, 1431655766;", lambda x: x * 1431655766 >> 32),
        ("mul.wide.s32 %rd6, %r10, -3; shr.u64 %rd6, %rd6, 32; cvt.u32.u64 %r20, %rd6;",
         lambda x: signed(x) * -3 >> 32),
        ("mad.lo.s32 %r20, %r10, 5, %r10;", lambda x: x * 6),
        ("shr.s32 %r20, %r10, 4;", lambda x: signed(x) >> 4),
        ("shr.u32 %r20, %r10, 40;", lambda x: 0),
        ("shl.b32 %r20, %r10, 33;", lambda x: 0),
        ("div.s32 %r20, %r10, -7;", lambda x: -int(signed(x) / 7)),
        ("rem.s32 %r20, %r10, 7;", lambda x: signed(x) - 7 * int(signed(x) / 7)),
        ("bfe.u32 %r20, %r10, 4, 8;", lambda x: x >> 4 & 255),
        ("bfe.s32 %r20, %r10, 4, 4;", lambda x: (x >> 4 & 15) - ((x >> 4 & 8) << 1)),
        ("bfe.u32 %r20, %r10, 24, 32;", lambda x: x >> 24),
        ("prmt.b32 %r20, %r10, 0, 0x7770U;", lambda x: x & 255),
        ("prmt.b32 %r20, %r10, %r10, 0x0123;", lambda x: int.from_bytes(x.to_bytes(4, "little"), "big")),
        ("prmt.b32 %r20, %r10, 0, 0x8888;", lambda x: 0xFFFFFFFF * (x >> 7 & 1)),
        ("cvt.u16.u32 %rs1, %r10; cvt.s32.s16 %r20, %rs1;", lambda x: (x & 0xFFFF) - ((x & 0x8000) << 1)),
        ("cvt.s32.s8 %r20, %r10;", lambda x: (x & 0xFF) - ((x & 0x80) << 1)),
        ("mov.b32 {%rs1, %rs2}, %r10; mov.b32 %r20, {%rs2, %rs1};", lambda x: x >> 16 | (x & 0xFFFF) << 16),
        ("not.b32 %r20, %r10;", lambda x: ~x),
        ("neg.s32 %r20, %r10;", lambda x: -x),
        ("max.s32 %r20, %r10, -2;", lambda x: max(signed(x), -2)),
        ("setp.lt.s32 %p3, %r10, 0; @%p3 mov.b32 %r10, 9; @!%p3 mov.b32 %r10, 4; mov.b32 %r20, %r10;",
         lambda x: 9 if signed(x) < 0 else 4),
    ],
)  # fmt: skip
def test_integers_are_computed_as_ptx_says(body, expected):
    wanted = [expected(int(x)) & 0xFFFFFFFF for x in INTEGERS]
    np.testing.assert_array_equal(results(body, INTEGERS), np.array(wanted, np.uint32))


@pytest.mark.parametrize(
    ("operands", "expected"),
    [
        ("bfly.b32 %r20, %r10, 5, 31, -1", lambda t: t ^ 5),
        ("bfly.b32 %r20, %r10, 8, 31, -1", lambda t: t ^ 8),
        ("down.b32 %r20, %r10, 3, 31, -1", lambda t: t + 3 if t % 32 < 29 else t),
        ("up.b32 %r20, %r10, 3, 0, -1", lambda t: t - 3 if t % 32 >= 3 else t),
        ("idx.b32 %r20, %r10, 7, 31, -1", lambda t: t // 32 * 32 + 7),
        ("idx.b32 %r20, %r10, 1, 6175, -1", lambda t: t // 8 * 8 + 1),  # segments of 8: 0x181F
    ],
)
def test_a_shuffle_takes_another_threads_value(operands, expected):
    found = results(f"shfl.sync.{operands};", np.arange(THREADS, dtype=np.uint32))
    assert [int(each) for each in found] == [expected(thread) for thread in range(THREADS)]


def test_redux_sums_a_warp():
    found = results("mov.b32 %r11, -1; redux.sync.add.s32 %r20, %r10, %r11;", np.arange(THREADS, dtype=np.uint32))
    assert [int(each) for each in found] == [496] * 32 + [1520] * 32


def test_bytes_are_loaded_with_their_sign_or_without():
    x = np.array([1, 200], np.uint8).repeat(32)
    body = "cvt.u64.u32 %rd6, %r1; add.s64 %rd6, %rd1, %rd6; ld.global.{} {{%rs1}}, [%rd6+0]; cvt.s32.s16 %r20, %rs1;"
    store = "st.global.b32 [%rd5+0], {%r20};"
    plain = run(body.format("b8") + store, x=x).outputs["out"]
    sign = run(body.format("s8") + store, x=x).outputs["out"].view(np.int32)
    assert (plain[-1], sign[-1], sign[0]) == (200, -56, 1)


def test_matrices_are_multiplied_as_numpy_multiplies():
    """ldmatrix, transposed for the right one, and mma: 16 × 16 by 16 × 8, the same in both warps."""
    random = np.random.default_rng(1)
    left, right = (random.standard_normal(shape).astype(np.float16) for shape in ((16, 16), (16, 8)))
    x = np.concatenate((left.ravel(), right.ravel())).view(np.uint32)
    body = """
    @%p1 ld.global.v2.b32 {%r10,%r11}, [%rd7+0]; @%p1 ld.global.v4.b32 {%r12,%r13,%r14,%r15}, [%rd8+0];
    @%p1 st.shared.v4.b32 [%r30], {%r12,%r13,%r14,%r15}; @%p1 st.shared.v2.b32 [%r31+512], {%r10,%r11};
    bar.sync 0; and.b32 %r32, %r1, 31; and.b32 %r33, %r32, 15; shl.b32 %r33, %r33, 5; and.b32 %r34, %r32, 16;
    add.s32 %r33, %r33, %r34; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r40,%r41,%r42,%r43}, [%r33];
    and.b32 %r35, %r32, 15; shl.b32 %r35, %r35, 4;
    ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r44,%r45}, [%r35+512];
    mov.b32 %r50, 0f3F800000;
    mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r60,%r61,%r62,%r63}, {%r40,%r41,%r42,%r43}, {%r44,%r45},
      {%r50,%r50,%r50,%r50};
    mul.wide.u32 %rd6, %r32, 8; add.s64 %rd6, %rd6, %rd2; @%p1 st.global.v2.b32 [%rd6+0], {%r60,%r61};
    @%p1 st.global.v2.b32 [%rd6+256], {%r62,%r63};"""
    start = """
    mul.wide.u32 %rd7, %r1, 8; add.s64 %rd7, %rd7, %rd1; add.s64 %rd7, %rd7, 512; mul.wide.u32 %rd8, %r1, 16;
    add.s64 %rd8, %rd8, %rd1; shl.b32 %r30, %r1, 4; shl.b32 %r31, %r1, 3;"""
    done = run(start + body.replace("\n      ", " "), x=x, out=np.zeros((16, 8), np.float32))
    expected = left.astype(np.float64) @ right.astype(np.float64) + 1
    np.testing.assert_allclose(done.outputs["out"], expected, rtol=0, atol=2e-6)


# Tensors and storage


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8, torch.int64], ids=str)
def test_storage_goes_to_an_array_and_back(dtype):
    tensor = torch.randint(0, 100, (2, 3, 4, 5)).to(dtype).contiguous(memory_format=torch.channels_last)
    array = storage_of(tensor)
    assert array.shape == (2, 4, 5, 3)
    assert array.dtype == (np.uint16 if dtype == torch.bfloat16 else tensor.numpy().dtype)
    back = tensor_like(array, tensor)
    assert back.stride() == tensor.stride()
    torch.testing.assert_close(back, tensor, rtol=0, atol=0)


def test_a_tensor_with_gaps_is_refused():
    with pytest.raises(KernelInputError, match="gaps"):
        storage_of(torch.zeros(4, 6)[:, :3])


# Compiled kernels


@triton.jit
def tile_in_32_bits(x, out, size: tl.constexpr):
    at = tl.program_id(0) * size + tl.arange(0, size)
    tl.store(out + at, tl.load(x + at))


@triton.jit
def tile_in_64_bits(x, out, size: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * size + tl.arange(0, size)
    tl.store(out + at, tl.load(x + at))


def tile_launch(kernel, tiles=1):
    x, out = torch.arange(1024.0 * tiles), torch.empty(1024 * tiles)
    config = LaunchConfig(num_warps=4, num_stages=1, blocks={"size": 1024}, reason="a test")
    return Launch(kernel.__name__, kernel, (tiles, 1, 1), {"x": x, "out": out}, ("out",), {"size": 1024}, config)


FAR_TILE = 3_000_000  # 3 · 2³⁰ numbers: past 2³¹
FAR = Far((FAR_TILE, 0, 0), {"x": FAR_TILE * 4096, "out": FAR_TILE * 4096})


def test_a_far_tile_is_right_with_offsets_in_64_bits():
    launch = tile_launch(tile_in_64_bits)
    compiled = compile_once(launch)
    done = run_launch(launch, compiled.ptx, compiled.shared_bytes, far=FAR)
    assert done.unwritten == {"out": 0}
    torch.testing.assert_close(launch.arguments["out"], launch.arguments["x"])


def test_an_offset_in_32_bits_is_found_at_a_far_tile():
    launch = tile_launch(tile_in_32_bits)
    compiled = compile_once(launch)
    run_launch(launch, compiled.ptx, compiled.shared_bytes)
    with pytest.raises(KernelFault, match=r"memcheck: 16 bytes at x - 17,179,869,184"):
        run_launch(launch, compiled.ptx, compiled.shared_bytes, far=FAR)


def test_a_far_tile_is_where_32_bits_end():
    place = far_tile(tile_launch(tile_in_64_bits), tile_launch(tile_in_64_bits, 2))
    assert place.tile == 2**32 // 1024 + 1
    assert place.far == Far((place.tile, 0, 0), {"x": place.tile * 4096, "out": place.tile * 4096})
    assert place.near == Far((0, 0, 0))


def test_a_far_tile_that_differs_from_the_first_is_found():
    launch = tile_launch(tile_in_64_bits)
    compiled = compile_once(launch)
    place = far_tile(launch, tile_launch(tile_in_64_bits, 2))
    check_far_tile(launch, compiled.ptx, compiled.shared_bytes, place)
    tile = re.search(r"mov\.u32\s+(%r\d+), %ctaid\.x;", compiled.ptx)[1]
    changed = re.sub(r"(st\.global\S* \[[^]]*\], \{) %r\d+", rf"\1 {tile}", compiled.ptx, count=1)
    with pytest.raises(KernelFault, match="out of tile 4,194,305 differs"):
        check_far_tile(launch, changed, compiled.shared_bytes, place)


_compiled = {}


def compile_once(launch, sm=80):
    """The launch's code; launches that differ in nothing but their tensors' values are compiled once."""
    types = tuple(str(getattr(value, "dtype", "i32")) for value in launch.arguments.values())
    key = (launch.name, types, tuple(launch.constants.items()), launch.config.num_warps, launch.config.num_stages, sm)
    if key not in _compiled:
        _compiled[key] = compile_launch(launch, TARGETS[sm])
    return _compiled[key]


def assert_sane_and_as_exact_as_torch(name, problem):
    """Every launch under the sanitizer, all outputs written, and as near to float64 as they must be."""
    arguments = catalogue.inputs(name, problem)
    planned = catalogue.plan(name, arguments, TARGETS[80])
    for launch in planned.launches:
        compiled = compile_once(launch)
        done = run_launch(launch, compiled.ptx, compiled.shared_bytes)
        assert not any(done.unwritten.values())
    low = catalogue.reference(name, arguments, problem.dtype if len(catalogue.dtypes(name)) > 1 else torch.float32)
    expected = zip(catalogue.reference(name, arguments), low, strict=True)
    for result, (exact, torchs) in zip(catalogue.outputs_of(planned.outputs), expected, strict=True):
        comparison = bounds.compare(result, exact, torchs)
        assert comparison.holds, f"{name} {problem}: {comparison}"


SMALL = [(name, dtype) for name in KERNELS for dtype in catalogue.dtypes(name)]


def small():
    """Even and odd sizes. Compiling takes seconds: each dtype and size is in a fast case, the other cases are slow."""
    fast = {(torch.float16, 64), (torch.bfloat16, 44), (torch.float32, 64)}
    for name, dtype in SMALL:
        for channels, height, width in ((64, 7, 7), (44, 5, 9)):
            quick = name in ("normalize_tiles", "aggregate_tiles") or (dtype, channels) in fast
            marks = [] if quick else [pytest.mark.slow]
            yield pytest.param(name, dtype, channels, height, width, marks=marks)


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "height", "width"),
    list(small()),
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_compiled_kernels_are_sane_and_as_exact_as_torch(name, dtype, channels, height, width):
    order = "avg-max" if height == width else "max-avg"
    assert_sane_and_as_exact_as_torch(name, Problem(dtype, 2, channels, height, width, order=order, tile_px=33))


@cache
def tail_code(dtype, num_stages):
    arguments = catalogue.inputs("attention_tail", Problem(dtype, 1, 64, 7, 7))
    (launch,) = catalogue.plan("attention_tail", arguments, TARGETS[80]).launches
    launch = replace(launch, config=replace(launch.config, num_stages=num_stages))
    return launch, compile_once(launch)


def test_a_tail_whose_copies_are_not_waited_for_is_found():
    launch, compiled = tail_code(torch.float16, 3)
    first = re.search(r"cp\.async\.wait_group\s+(\d+);", compiled.ptx)
    early = compiled.ptx[: first.start(1)] + str(int(first[1]) + 1) + compiled.ptx[first.end(1) :]
    execute(compiled.ptx, arguments_of(launch), launch.grid, compiled.shared_bytes, stored=launch.stored)
    with pytest.raises(KernelFault, match=r"initcheck: .* while cp\.async copies it"):
        execute(early, arguments_of(launch), launch.grid, compiled.shared_bytes, stored=launch.stored)


def test_a_tail_without_its_first_barriers_is_found():
    launch, compiled = tail_code(torch.float16, 1)
    for number in range(3):
        with pytest.raises(KernelFault, match="racecheck: "):
            without_barrier(launch, compiled, number)


def without_barrier(launch, compiled, number):
    barrier = list(re.finditer(r"bar\.sync\s+0;", compiled.ptx))[number]
    mutant = compiled.ptx[: barrier.start()] + compiled.ptx[barrier.end() :]
    execute(mutant, arguments_of(launch), launch.grid, compiled.shared_bytes, stored=launch.stored)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_barrier_of_attention_tail_is_needed_and_missed(dtype):
    launch, compiled = tail_code(dtype, 1)
    barriers = len(re.findall(r"bar\.sync\s+0;", compiled.ptx))
    assert barriers > 50
    for number in range(barriers):
        with pytest.raises(KernelFault, match=r"^(racecheck|initcheck): "):
            without_barrier(launch, compiled, number)


def large():
    """Sizes of maps: odd and even sides, rows that are not a multiple of 16 bytes, one tile and five."""
    for name, dtype in SMALL:
        if name in ("normalize_tiles", "aggregate_tiles"):
            yield from ((name, dtype, 7, 64, batch) for batch in (1, 5))
            continue
        for side in (7, 15, 16, 32):
            if name == "attention_tail" and side == 32:
                continue  # it takes 256 pixels
            for channels in (64,) if name == "attention_head" else (64, 2044, 2048):
                yield name, dtype, side, channels, 1
                if side in (7, 15) and channels == 64:
                    yield name, dtype, side, channels, 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "side", "channels", "batch"), list(large()), ids=lambda value: str(value).removeprefix("torch.")
)
def test_large_compiled_kernels_are_sane_and_as_exact_as_torch(name, dtype, side, channels, batch):
    assert_sane_and_as_exact_as_torch(name, Problem(dtype, batch, channels, side, side, tile_px=224))
