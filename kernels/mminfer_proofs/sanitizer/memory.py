"""Loads, stores and asynchronous copies: each builder returns the steps of one statement, bound to a CTA's memories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.access import Access, Array
from mminfer_proofs.sanitizer.arena import Arena
from mminfer_proofs.sanitizer.ptx import Address, Operand, Statement
from mminfer_proofs.sanitizer.registers import UNSIGNED, Registers, Step, dtype_of
from mminfer_proofs.sanitizer.shared import Shared
from mminfer_proofs.sanitizer.warp import converged

HINTS = {"nc", "ca", "cg", "cs", "wb", "wt"}
"""Cache operators, which change no result; neither do L1:: and L2:: modifiers."""
VECTORS = {"v2": 2, "v4": 4}
WIDEST = 16
"""The widest access of a thread in bytes; sm_100 has wider ones."""


@dataclass(frozen=True)
class Memories:
    """Everything that a launch's instructions access."""

    registers: Registers
    arena: Arena
    shared: Shared
    parameters: Mapping[str, int]
    """The values of the kernel's parameters."""


Builder = Callable[[Statement, Memories], list[Step]]


def _access(statement: Statement) -> tuple[str, Access]:
    """The memory that a load or store accesses, and the access of one thread.

    Raises:
        KernelFault: unsupported: a modifier that changes the result.
    """
    space, *rest, kind = statement.modifiers
    vector = [VECTORS[each] for each in rest if each in VECTORS]
    plain = [each for each in rest if each not in HINTS | VECTORS.keys() and not each.startswith(("L1::", "L2::"))]
    if plain or space not in ("global", "shared", "param") or len(statement.operands) != 2:
        raise KernelFault(f"unsupported: {statement}.")
    dtype = dtype_of(kind)
    access = Access(statement, dtype if dtype.kind == "i" else UNSIGNED[8 * dtype.itemsize], *vector)
    if access.width > WIDEST:
        raise KernelFault(f"unsupported: {statement}: {access.width} bytes per thread.")
    return space, access


def _names(operand: Operand, access: Access) -> tuple[str, ...]:
    """The registers of an operand, one per element."""
    names = operand if isinstance(operand, tuple) else (operand,)
    if len(names) != access.count or not all(isinstance(name, str) for name in names):
        raise KernelFault(f"unsupported: {access.statement}.")
    return tuple(str(name) for name in names)


def pointer(memories: Memories, operand: Operand, space: str) -> Callable[[Array], Array]:
    """A function that returns the addresses for given threads."""
    if not isinstance(operand, Address):
        raise KernelFault(f"unsupported: the memory operand {operand}.")
    if space == "global":
        wide, far = memories.registers.source(operand.base, np.uint64), np.uint64(operand.offset % (1 << 64))
        return lambda threads: wide[threads] + far
    near = memories.registers.source(operand.base, np.uint32)
    return lambda threads: near[threads].astype(np.int64) + operand.offset


def _active(registers: Registers, statement: Statement) -> tuple[list[Step], Callable[[], Array]]:
    """The steps that update the statement's guard, and a function that returns the threads for which it holds."""
    everyone = np.arange(registers.threads)
    prelude, mask = registers.mask(statement.guard)
    if mask is None:
        return prelude, lambda: everyone
    return prelude, lambda: np.flatnonzero(mask)


def load(statement: Statement, memories: Memories) -> list[Step]:
    """The steps of one ld."""
    space, access = _access(statement)
    target, source = statement.operands
    if space == "param":
        if not isinstance(source, Address) or source.base not in memories.parameters or source.offset:
            raise KernelFault(f"unsupported: {statement}.")
        dtype = dtype_of(statement.modifiers[-1])
        bits = memories.parameters[source.base] % (1 << 8 * dtype.itemsize)
        parameter = np.full(memories.registers.threads, bits, f"u{dtype.itemsize}")
        return memories.registers.assign(statement, lambda: parameter, memories.registers.target(target))
    names = _names(target, access)
    columns = [(index, memories.registers.target(name)) for index, name in enumerate(names) if name != "_"]
    address = pointer(memories, source, space)
    prelude, active = _active(memories.registers, statement)
    read = memories.arena.load if space == "global" else memories.shared.load
    signed, everyone = access.dtype.kind == "i", memories.registers.threads

    def run() -> None:
        threads = active()
        if threads.size:
            values = read(access, address(threads), threads)
            where = threads if threads.size < everyone else slice(None)
            for index, row in columns:
                row[where] = values[:, index].astype(f"i{row.itemsize}") if signed else values[:, index]

    return [*prelude, run]


def store(statement: Statement, memories: Memories) -> list[Step]:
    """The steps of one st."""
    space, access = _access(statement)
    target, source = statement.operands
    if space == "param":
        raise KernelFault(f"unsupported: {statement}.")
    rows = [memories.registers.low(name, access.dtype) for name in _names(source, access)]
    address = pointer(memories, target, space)
    prelude, active = _active(memories.registers, statement)
    write = memories.arena.store if space == "global" else memories.shared.store

    def run() -> None:
        threads = active()
        if threads.size:
            write(access, address(threads), threads, np.stack([row[threads] for row in rows], axis=1))

    return [*prelude, run]


def copy(statement: Statement, memories: Memories) -> list[Step]:
    """The steps of one statement of the cp.async family.

    Raises:
        KernelFault: unsupported: it is another kind of copy.
    """
    match statement.modifiers:
        case ("async", "commit_group"):
            return converged(statement, memories.registers, memories.shared.commit)
        case ("async", "wait_group"):
            pending = int(str(statement.operands[0]), 0)
            return converged(statement, memories.registers, partial(memories.shared.wait, pending))
        case ("async", "wait_all"):
            everything = partial(memories.shared.wait, 0, uncommitted=True)
            return converged(statement, memories.registers, everything)
        case ("async", "ca" | "cg", "shared", "global", *hints) if all(hint.startswith("L2::") for hint in hints):
            return _copy(statement, memories)
    raise KernelFault(f"unsupported: {statement}.")


def _copy(statement: Statement, memories: Memories) -> list[Step]:
    """A copy of 4, 8 or 16 bytes per thread; a thread whose source has 0 bytes writes zeros and reads nothing."""
    target, source, size, *given = statement.operands
    registers, width = memories.registers, int(str(size), 0)
    access = Access(statement, np.dtype(np.uint8), width)
    size_row = registers.source(given[0], np.uint32) if given else np.full(registers.threads, width, np.uint32)
    to, of = pointer(memories, target, "shared"), pointer(memories, source, "global")
    prelude, active = _active(registers, statement)
    if len(given) > 1 or width not in (4, 8, 16):
        raise KernelFault(f"unsupported: {statement}.")

    def run() -> None:
        threads = active()
        sizes = size_row[threads]
        if ((sizes != 0) & (sizes != width)).any():
            raise KernelFault(f"unsupported: a copy of a part of {width} bytes, in {statement}.")
        reads = threads[sizes != 0]
        values = np.zeros((threads.size, width), np.uint8)
        if reads.size:
            values[sizes != 0] = memories.arena.load(access, of(reads), reads)
        if threads.size:
            memories.shared.copy(access, to(threads), threads, values)

    return [*prelude, run]


BUILDERS: Mapping[str, Builder] = {"ld": load, "st": store, "cp": copy}
"""The instructions that move data between registers and memories."""
