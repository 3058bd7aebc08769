"""The registers of one CTA, each a row of all threads, so that one NumPy call runs an instruction for every thread.

A PTX register has a width and no type. A row is therefore one piece of memory, viewed with the type that an instruction
names. The rows exist before anything runs, so that an instruction is bound to them once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.ptx import Guard, Operand, Program, Statement

Row = NDArray[Any]
"""One register of every thread."""

Step = Callable[[], object]
"""A part of an instruction, called each time that the instruction is reached."""

UNSIGNED = {1: np.dtype(bool), 8: np.dtype("u1"), 16: np.dtype("u2"), 32: np.dtype("u4"), 64: np.dtype("u8")}
UNTOUCHED = 0xA5
"""The bytes of a register before anything is written to it; results that depend on them are wrong visibly."""


@cache
def dtype_of(kind: str) -> np.dtype[Any]:
    """The NumPy type of a PTX type; bf16, f16x2 and bf16x2 are the unsigned integers that hold them.

    Raises:
        KernelFault: unsupported: there is none.
    """
    packed = {"bf16": "u2", "bf16x2": "u4", "f16x2": "u4", "pred": "?"}
    found = kind[0] in "subf" and kind[1:] in ("8", "16", "32", "64") and kind != "f8"
    if kind in packed or found:
        return np.dtype(packed.get(kind) or {"s": "i", "b": "u"}.get(kind[0], kind[0]) + str(int(kind[1:]) // 8))
    raise KernelFault(f"unsupported: the type .{kind}.")


class Registers:
    """Rows of registers, constants and special registers, by their names in PTX."""

    def __init__(self, program: Program, grid: tuple[int, int, int]):
        self.threads = program.threads
        self.program_id = [np.zeros(self.threads, np.uint32) for _ in range(3)]
        self.wide = np.zeros(self.threads, np.float64)
        """Space for an intermediate result in float64."""
        self._program = program
        self._rows: dict[str, Row] = {}
        self._constants: dict[tuple[str, np.dtype[Any]], Row] = {}
        thread = np.arange(self.threads, dtype=np.uint32)
        self._special = {"%tid.x": thread, "%laneid": thread % 32}
        self._special |= {f"%ctaid.{axis}": row for axis, row in zip("xyz", self.program_id, strict=True)}
        fixed = {"%tid.y": 0, "%tid.z": 0, "%ntid.x": self.threads, "%ntid.y": 1, "%ntid.z": 1}
        fixed |= {f"%nctaid.{axis}": programs for axis, programs in zip("xyz", grid, strict=True)}
        self._special |= {name: np.full(self.threads, value, np.uint32) for name, value in fixed.items()}

    def source(self, operand: Operand, dtype: DTypeLike) -> Row:
        """The row of a register or a number, as that type.

        Raises:
            KernelFault: unsupported: the operand has another width, or is unknown.
        """
        kind = np.dtype(dtype)
        if not isinstance(operand, str):
            raise KernelFault(f"unsupported: the operand {operand} as a number.")
        if not operand.startswith("%"):
            if (operand, kind) not in self._constants:
                constant = np.full(self.threads, self._number(operand, kind), UNSIGNED[8 * kind.itemsize])
                self._constants[operand, kind] = (constant != 0) if kind.kind == "b" else constant.view(kind)
            return self._constants[operand, kind]
        row = self._special.get(operand)
        row = self.target(operand) if row is None else row
        return self._as(row, operand, kind)

    def target(self, operand: Operand, dtype: DTypeLike | None = None) -> Row:
        """The row of a register, as that type or as unsigned bits; `_` is a row that is never read.

        Raises:
            KernelFault: unsupported: the operand is no register, or has another width.
        """
        if not isinstance(operand, str) or not (operand.startswith("%") or operand == "_"):
            raise KernelFault(f"unsupported: writing to {operand}.")
        if operand == "_":
            return np.zeros(self.threads, dtype or np.uint32)
        if operand not in self._rows:
            width = self._program.widths.get(operand.rstrip("0123456789")) or self._program.widths.get(operand)
            if width not in UNSIGNED:
                raise KernelFault(f"unsupported: the register {operand}, of {width} bits.")
            if width == 1:
                self._rows[operand] = np.zeros(self.threads, bool)
            else:
                bits = np.full(self.threads * width // 8, UNTOUCHED, np.uint8)
                self._rows[operand] = bits.view(UNSIGNED[width])
        row = self._rows[operand]
        return row if dtype is None else self._as(row, operand, np.dtype(dtype))

    def low(self, operand: Operand, dtype: DTypeLike) -> Row:
        """The low bits of a register's row, or a number, as that type, for a store or a conversion."""
        kind = np.dtype(dtype)
        if isinstance(operand, str) and operand.startswith("%") and operand not in self._special:
            row = self.target(operand)
            if row.dtype.itemsize > kind.itemsize:
                return row.view(kind)[:: row.dtype.itemsize // kind.itemsize]
        return self.source(operand, kind)

    def mask(self, guard: Guard | None) -> tuple[list[Step], Row | None]:
        """The steps that update a guard, and the row of the threads for which it holds; None without a guard."""
        if guard is None:
            return [], None
        row = self.source(guard.predicate, bool)
        if not guard.negated:
            return [], row
        inverted = np.zeros(self.threads, bool)
        return [partial(np.logical_not, row, inverted)], inverted

    def call(self, statement: Statement, function: np.ufunc, inputs: list[Row], out: Row) -> list[Step]:
        """The steps that write function(inputs) to out, for the threads for which the guard holds."""
        prelude, mask = self.mask(statement.guard)
        if mask is None:
            return [partial(function, *inputs, out=out)]
        return [*prelude, partial(function, *inputs, out=out, where=mask)]

    def assign(self, statement: Statement, value: Callable[[], Row], out: Row) -> list[Step]:
        """The steps that write the row that a function returns to out, for the threads for which the guard holds."""
        prelude, mask = self.mask(statement.guard)
        where = True if mask is None else mask
        return [*prelude, lambda: np.copyto(out, value(), where=where)]

    def _as(self, row: Row, name: str, kind: np.dtype[Any]) -> Row:
        if row.dtype.itemsize != kind.itemsize or (row.dtype.kind == "b") != (kind.kind == "b"):
            raise KernelFault(f"unsupported: {name}, {row.dtype.name}, taken for {kind.name}.")
        return row.view(kind)

    def _number(self, text: str, kind: np.dtype[Any]) -> int:
        """The bits of a number in PTX; the shared memory begins at 0."""
        if text == self._program.shared_symbol:
            return 0
        if text[:2] in ("0f", "0F", "0d", "0D"):
            bits = int(text[2:], 16)
            if len(text) - 2 != 2 * kind.itemsize:
                raise KernelFault(f"unsupported: the number {text} as {kind.name}.")
            return bits
        try:
            value = int(text.rstrip("U"), 0)
        except ValueError:
            raise KernelFault(f"unsupported: the operand {text}.") from None
        if kind.kind == "f":
            raise KernelFault(f"unsupported: the integer {text} as {kind.name}.")
        return value & ((1 << 8 * kind.itemsize) - 1)
