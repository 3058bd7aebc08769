"""Exchange between the threads of a warp without memory: shuffles and sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer.ptx import Statement
from mminfer_proofs.sanitizer.registers import Registers, Row, Step, dtype_of

WARP = 32
REDUCTIONS: Mapping[str, np.ufunc] = {
    "add": np.add, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


def converged(statement: Statement, registers: Registers, run: Callable[[], object]) -> list[Step]:
    """The steps of a statement that all threads execute together or none does.

    Raises:
        KernelFault: when run: synccheck: its guard lets only some of them through.
    """
    prelude, mask = registers.mask(statement.guard)
    if mask is None:
        return [run]

    def guarded() -> None:
        if mask.all():
            run()
        elif mask.any():
            raise KernelFault(f"synccheck: {int(mask.sum())} of {mask.size} threads alone reach {statement}.")

    return [*prelude, guarded]


def whole_warp(statement: Statement, members: Row) -> None:
    """Raise unless the mask of members contains all threads of a warp.

    Raises:
        KernelFault: unsupported: it does not.
    """
    if (members != 0xFFFFFFFF).any():
        raise KernelFault(f"unsupported: {statement}: a part of a warp.")


def shuffle(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one shfl.sync: each thread takes another's register."""
    sync, way, *kind = statement.modifiers
    target, value, places, limits, members = statement.operands
    if sync != "sync" or kind != ["b32"] or way not in ("bfly", "idx", "up", "down") or "|" in str(target):
        raise KernelFault(f"unsupported: {statement}.")
    given, out = registers.source(value, np.uint32), registers.target(target, np.uint32)
    rows = [registers.source(operand, np.uint32) for operand in (places, limits, members)]
    known = not any(str(operand).startswith("%") for operand in (places, limits, members))
    sources = _sources(way, rows[0], rows[1])

    def run() -> None:
        if not known:
            sources[:] = _sources(way, rows[0], rows[1])
        whole_warp(statement, rows[2])
        np.copyto(out, given[sources])

    return converged(statement, registers, run)


def _sources(way: str, places: Row, limits: Row) -> Row:
    """The thread whose value each thread takes: its own, if the other is outside its segment of the warp."""
    thread = np.arange(places.size)
    lane, place, last, segment = thread % WARP, places & 31, limits & 31, limits >> 8 & 31
    first = lane & segment
    furthest = first | last & ~segment & 31
    other = {"bfly": lane ^ place, "idx": first | place & ~segment & 31, "up": lane - place, "down": lane + place}[way]
    reached = other >= furthest if way == "up" else other <= furthest
    return thread - lane + np.where(reached, other, lane)


def reduce(statement: Statement, registers: Registers) -> list[Step]:
    """The steps of one redux.sync: each thread takes the sum, or another reduction, over its warp."""
    sync, way, *kind = statement.modifiers
    target, value, members = statement.operands
    if sync != "sync" or way not in REDUCTIONS or kind not in (["s32"], ["u32"], ["b32"]):
        raise KernelFault(f"unsupported: {statement}.")
    dtype, function = dtype_of(kind[0]), REDUCTIONS[way]
    given, out = registers.source(value, dtype), registers.target(target, dtype)
    mask = registers.source(members, np.uint32)

    def run() -> None:
        whole_warp(statement, mask)
        each = function.reduce(given.reshape(-1, WARP), axis=1, dtype=dtype)
        np.copyto(out, np.repeat(each, WARP))

    return converged(statement, registers, run)
