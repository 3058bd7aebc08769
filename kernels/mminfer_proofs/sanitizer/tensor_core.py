"""ldmatrix and mma: matrices spread over the 32 threads of a warp (PTX ISA, "Matrix multiply-accumulate").

A fragment of 8 × 8 numbers of 16 bits is one 32-bit register of a warp: thread 4·row + column / 2 holds two neighbours
of a row. So the bytes of a register's row, taken as 16-bit numbers, are the matrix itself.
"""

from __future__ import annotations

import numpy as np

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.access import Access, Array
from mminfer_proofs.sanitizer.conversion import float32_of
from mminfer_proofs.sanitizer.memory import Memories, pointer
from mminfer_proofs.sanitizer.ptx import Statement
from mminfer_proofs.sanitizer.registers import Row, Step
from mminfer_proofs.sanitizer.warp import WARP, converged

ROWS = 8
"""Rows of a matrix, 16 bytes each, whose addresses 8 threads give."""


def load_matrices(statement: Statement, memories: Memories) -> list[Step]:
    """The steps of one ldmatrix: 1, 2 or 4 matrices of 8 × 8 per warp, transposed if the statement says so."""
    target, source = statement.operands
    names = target if isinstance(target, tuple) else (target,)
    known = ("sync", "aligned", "m8n8", f"x{len(names)}", *(["trans"] if "trans" in statement.modifiers else []))
    if statement.modifiers not in ((*known, "shared", "b16"), (*known, "shared::cta", "b16")):
        raise KernelFault(f"unsupported: {statement}.")
    registers, address = memories.registers, pointer(memories, source, "shared")
    rows = [registers.target(name, np.uint32) for name in names]
    access = Access(statement, np.dtype(np.uint16), ROWS)
    thread = np.arange(registers.threads)
    givers = thread[thread % WARP < ROWS * len(rows)]
    matrix = givers // ROWS

    def run() -> None:
        loaded = memories.shared.load(access, address(givers), givers, matrix)
        matrices = loaded.reshape(-1, len(rows), ROWS, ROWS)
        if "trans" in statement.modifiers:
            matrices = matrices.swapaxes(2, 3)
        held = np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, len(rows), WARP)
        for index, row in enumerate(rows):
            row[:] = held[:, index].reshape(-1)

    return converged(statement, registers, run)


def multiply(statement: Statement, memories: Memories) -> list[Step]:
    """The steps of one mma of 16 × 8 by 16: products of 16-bit numbers, exact in float32, and sums in float32."""
    kind = statement.modifiers[-2]
    shape = ("sync", "aligned", "m16n8k16", "row", "col", "f32", kind, kind, "f32")
    if statement.modifiers != shape or kind not in ("f16", "bf16"):
        raise KernelFault(f"unsupported: {statement}.")
    fragments: list[list[Row]] = []
    for operand in statement.operands:
        if not isinstance(operand, tuple):
            raise KernelFault(f"unsupported: the operand {operand} of mma.")
        fragments.append([memories.registers.source(name, np.uint32) for name in operand])
    target, left, right, start = fragments
    out, begin = ([row.view(np.float32) for row in rows] for rows in (target, start))

    def run() -> None:
        first = np.concatenate((_matrices(left[0::2], kind), _matrices(left[1::2], kind)), axis=1)
        second = _matrices(right, kind)
        product = np.matmul(first, second.swapaxes(1, 2)).reshape(-1, 2, WARP, 2)
        sums = [product[:, index // 2, :, index % 2].reshape(-1) + row for index, row in enumerate(begin)]
        for row, total in zip(out, sums, strict=True):
            row[:] = total

    return converged(statement, memories.registers, run)


def _matrices(rows: list[Row], kind: str) -> Array:
    """float32, (warps, 8, 16): two fragments side by side."""
    halves = np.stack([row.view(np.uint16).reshape(-1, ROWS, ROWS) for row in rows], axis=2)
    wide = float32_of(halves) if kind == "bf16" else halves.view(np.float16).astype(np.float32)
    return wide.reshape(-1, ROWS, 2 * ROWS)


BUILDERS = {"ldmatrix": load_matrices, "mma": multiply}
"""The instructions of whole matrices."""
