"""Compile every kernel ahead of time for every target and check its resources: `python -m mminfer_proofs.aot`.

The launches are those that a GPU would run (`catalogue.plan`), at the network's size. No GPU is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import triton

from mminfer_kernels import catalogue
from mminfer_kernels.catalogue import KERNELS, Problem
from mminfer_kernels.compile import WARP, compile_launch
from mminfer_kernels.launch import TARGETS, Launch, Target
from mminfer_proofs import resources
from mminfer_proofs.rows import write_rows

STACK_BYTES = 32
"""Stack that a thread may use outside the fast path, if no loop touches it."""
CHANNELS = (2048, 2044)
"""The network's own number, and one for which rows are not a multiple of 16 bytes."""
MULTIPLYING = ("attention_tail", "attention_project")
READING_MAPS = ("normalize_tiles", "channel_pool", "spatial_attention", *MULTIPLYING)
"""The launches that stream a map or a tile; only these have a fast path."""
OF_PIXELS = (
    Problem(torch.uint8, 1, native_px=512, pixel_bytes=3),
    Problem(torch.uint8, 1, native_px=1024),
    Problem(torch.uint8, 1, native_px=1536, block_px=3, pixel_bytes=3),
    Problem(torch.uint8, 1, native_px=2048),
    Problem(torch.uint8, 1, native_px=2048, block_px=4, tile_px=224),
    Problem(torch.uint8, 1, native_px=2048, block_px=8, tile_px=128),
)
"""The problems of functions of pixels: from no reduction to the largest tile and the most taps that a GPU resizes."""


@dataclass(frozen=True)
class Row:
    """The resources of one compiled launch."""

    kernel: str
    dtype: str
    layout: str
    channels: int | None
    pixels: str | None
    """Side before → after the resize, side of a block and bytes of a pixel, for functions of pixels."""
    fast_path: bool
    """Channels-last, two bytes a value, rows of a multiple of 16 bytes."""
    target: str
    registers: int
    stack_bytes: int
    spill_bytes: int
    stack_in_loop: bool
    shared_bytes: int
    shared_limit_bytes: int
    x_load_bits: int
    """The narrowest load of the first argument, which is x if there is an x."""
    x_bytes_in_flight: int
    """Bytes of the first argument that one program loads in an iteration."""
    tensor_core: bool
    nan_safe: bool
    tf32: bool
    accesses: str
    """The widths in bits of each argument's loads and stores."""


def launches(problem: Problem, target: Target) -> Iterator[Launch]:
    """Yield every launch of every kernel that exists for the problem's dtype, once."""
    seen: set[str] = set()
    for name in KERNELS:
        if problem.dtype in catalogue.dtypes(name):
            for launch in catalogue.plan(name, catalogue.inputs(name, problem), target).launches:
                if launch.name not in seen:
                    seen.add(launch.name)
                    yield launch


def matrix() -> list[tuple[str, Problem, Target]]:
    """Everything that is compiled: launches by name, with their problem and target."""
    floats = [
        (launch.name, problem)
        for channels in CHANNELS
        for dtype in (torch.float16, torch.bfloat16, torch.float32)
        for problem in (Problem(dtype, 1, channels, tile_px=512 if channels % 8 == 0 else 511),)
        for launch in launches(problem, TARGETS[80])
        if channels == CHANNELS[0] or launch.name in READING_MAPS
    ]
    others = [
        (launch.name, problem)
        for problem in (Problem(torch.int64, 1), *OF_PIXELS)
        for launch in launches(problem, TARGETS[80])
    ]
    return [(*each, target) for each in floats + others for target in TARGETS.values()]


def row_of(name: str, problem: Problem, target: Target, folder: Path | None = None) -> Row:
    """Compile a launch for a target and return its resources; write PTX and cubin to the folder, if given."""
    launch = next(launch for launch in launches(problem, target) if launch.name == name)
    compiled = compile_launch(launch, target)
    dtype = str(problem.dtype).removeprefix("torch.")
    size = _pixels(problem) if problem.dtype == torch.uint8 else str(problem.channels)
    if folder is not None:
        stem = f"{name}.{dtype}.{size}.sm_{target.sm}"
        (folder / f"{stem}.ptx").write_text(compiled.ptx)
        (folder / f"{stem}.cubin").write_bytes(compiled.cubin)
    code = resources.machine_code(compiled.cubin)
    accesses = resources.accesses(compiled.ptx, launch.arguments)
    loads = accesses[next(iter(launch.arguments))].load_bits
    return Row(
        kernel=name,
        dtype=dtype,
        layout="channels-last" if name in READING_MAPS else "contiguous",
        channels=problem.channels if problem.dtype != torch.uint8 else None,
        pixels=size if problem.dtype == torch.uint8 else None,
        fast_path=name in READING_MAPS and problem.dtype.itemsize == 2 and problem.channels == CHANNELS[0],
        target=f"sm_{target.sm}",
        registers=code.registers,
        stack_bytes=code.stack_bytes,
        spill_bytes=code.spill_bytes,
        stack_in_loop=code.stack_in_loop,
        shared_bytes=compiled.shared_bytes,
        shared_limit_bytes=target.shared_limit_bytes,
        x_load_bits=min(loads, default=0),
        x_bytes_in_flight=sum(loads) // 8 * WARP * launch.config.num_warps,
        tensor_core=resources.tensor_core_products(compiled.ptx) > 0,
        nan_safe=resources.bare_extremes(compiled.ptx) == 0,
        tf32=resources.rounds_to_tf32(compiled.ptx),
        accesses="; ".join(
            f"{argument} {kind} {'/'.join(map(str, sorted(set(bits))))}"
            for argument, access in accesses.items()
            for kind, bits in (("load", access.load_bits), ("store", access.store_bits))
            if bits
        ),
    )


def problems(row: Row) -> Iterator[str]:
    """Yield each rule that the row breaks, in words."""
    if (row.fast_path or row.pixels) and (row.stack_bytes or row.spill_bytes):
        yield f"{row.stack_bytes} bytes of stack and {row.spill_bytes} of spills on the fast path"
    if row.stack_bytes > STACK_BYTES or row.stack_in_loop:
        yield f"{row.stack_bytes} bytes of stack" + (", touched by a loop" if row.stack_in_loop else "")
    if row.fast_path and row.x_load_bits != 128:
        yield f"reads x by {row.x_load_bits} bits on the fast path"
    if row.fast_path and row.kernel in MULTIPLYING and not row.tensor_core:
        yield "multiplies without tensor cores"
    if row.shared_bytes > row.shared_limit_bytes:
        yield f"{row.shared_bytes} bytes of shared memory, of {row.shared_limit_bytes}"
    if not row.nan_safe:
        yield "a maximum or minimum drops NaN"
    if row.tf32:
        yield "float32 is rounded to TF32"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile everything, print the problems, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mminfer_proofs.aot", description=__doc__)
    parser.add_argument(
        "--save", type=Path, required=True, metavar="FILE", help="CSV with a row for each launch, dtype and target"
    )
    parser.add_argument("--cubins", type=Path, metavar="DIR", help="folder for PTX and cubins")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="number of compilers")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("Triton's interpreter is on: unset TRITON_INTERPRET and start again.")
    if options.cubins is not None:
        options.cubins.mkdir(parents=True, exist_ok=True)
    rows = compile_all(matrix(), options.jobs, options.cubins)
    write_rows(options.save, rows)
    wrong = [f"{_place(row)}: {problem}" for row in rows for problem in problems(row)]
    tolerated = [f"{_place(row)}: {row.stack_bytes} bytes of stack" for row in rows if row.stack_bytes]
    problem_count = f"{len(wrong)} problems" if wrong else "no problems"
    summary = f"triton {triton.__version__}: {len(rows)} launches compiled, {problem_count}."
    sys.stdout.write("\n".join([*tolerated, *wrong, summary, ""]))
    return bool(wrong)


def compile_all(cases: Sequence[tuple[str, Problem, Target]], jobs: int, folder: Path | None = None) -> list[Row]:
    """The rows of all cases, in their order."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(row_of, *case, folder) for case in cases]]


def _place(row: Row) -> str:
    return f"{row.kernel} {row.dtype} {row.pixels or f'C={row.channels}'} {row.target}"


def _pixels(problem: Problem) -> str:
    return f"{problem.before_px}-{problem.tile_px}-k{problem.block_px}x{problem.pixel_bytes}"


if __name__ == "__main__":
    sys.exit(main())
