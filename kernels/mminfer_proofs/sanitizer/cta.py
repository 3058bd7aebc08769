"""A compiled kernel that runs one CTA at a time: statements as steps, with the jumps and barriers between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer import arithmetic, memory, tensor_core
from mminfer_proofs.sanitizer.conversion import convert
from mminfer_proofs.sanitizer.memory import Memories
from mminfer_proofs.sanitizer.ptx import Program, Statement
from mminfer_proofs.sanitizer.registers import Step
from mminfer_proofs.sanitizer.warp import converged, reduce, shuffle

OF_REGISTERS: Mapping[str, arithmetic.Builder] = {
    **arithmetic.BUILDERS,
    "cvt": convert,
    "shfl": shuffle,
    "redux": reduce,
}
OF_MEMORIES: Mapping[str, memory.Builder] = {**memory.BUILDERS, **tensor_core.BUILDERS}
JUMPS = ("bra", "ret", "exit")
END = -1
MOST_STATEMENTS = 20_000_000
"""Statements that one CTA may execute before it counts as endless."""


@dataclass(frozen=True)
class Block:
    """Statements that run one after another, and a function that returns the next block."""

    steps: tuple[Step, ...]
    statements: int
    following: Callable[[], int]


class Machine:
    """A program bound to its memories."""

    def __init__(self, program: Program, memories: Memories):
        self._program, self._memories = program, memories
        starts = {0, *(program.labels[_label(program, each)] for each in program.statements if each.head == "bra")}
        starts |= {index + 1 for index, each in enumerate(program.statements) if each.head in JUMPS}
        self._numbers = {start: number for number, start in enumerate(sorted(starts))}
        edges = [*sorted(starts), len(program.statements)]
        self._blocks = [self._block(first, last) for first, last in pairwise(edges)]
        self.instructions = 0
        """Statements executed, by whole CTAs."""

    def run(self, program_id: tuple[int, int, int], number: int) -> None:
        """Execute one CTA; `number` is its number in the launch.

        Raises:
            KernelFault: the CTA did something forbidden.
        """
        for row, index in zip(self._memories.registers.program_id, program_id, strict=True):
            row.fill(index)
        self._memories.arena.enter(number)
        self._memories.shared.enter()
        try:
            with np.errstate(all="ignore"):
                self._run_blocks()
        except KernelFault as fault:
            raise KernelFault(f"{fault} Program {program_id}.") from None

    def _run_blocks(self) -> None:
        at, last = self._numbers[0], self.instructions + MOST_STATEMENTS
        while at not in (END, len(self._blocks)):
            block = self._blocks[at]
            for step in block.steps:
                step()
            self.instructions += block.statements
            if self.instructions > last:
                raise KernelFault(f"synccheck: no end after {MOST_STATEMENTS:,} statements of one CTA.")
            at = block.following()

    def _block(self, first: int, last: int) -> Block:
        statements = self._program.statements[first:last]
        jump = statements[-1] if statements and statements[-1].head in JUMPS else None
        straight = statements[:-1] if jump else statements
        steps = [step for statement in straight for step in self._steps(statement)]
        after = self._numbers.get(last, END)
        return Block(tuple(steps), len(statements), self._jump(jump, after) if jump else lambda: after)

    def _steps(self, statement: Statement) -> list[Step]:
        """The steps of a statement that does not jump.

        Raises:
            KernelFault: unsupported: the instruction or its operands are unknown.
        """
        if statement.head in ("bar", "barrier"):
            match statement.modifiers, statement.operands:
                case ("warp", "sync"), _:
                    return converged(statement, self._memories.registers, lambda: None)
                case ((("sync",) | ("sync", "aligned")), ("0",)):
                    return converged(statement, self._memories.registers, self._synchronise)
            raise KernelFault(f"unsupported: {statement}: a barrier of a part of the CTA.")
        try:
            if statement.head in OF_REGISTERS:
                return OF_REGISTERS[statement.head](statement, self._memories.registers)
            return OF_MEMORIES[statement.head](statement, self._memories)
        except KernelFault as fault:
            raise fault if str(statement) in str(fault) else KernelFault(f"{fault} In {statement}.") from None
        except (KeyError, ValueError, IndexError):
            raise KernelFault(f"unsupported: {statement}.") from None

    def _synchronise(self) -> None:
        self._memories.arena.synchronise()
        self._memories.shared.synchronise()

    def _jump(self, statement: Statement, otherwise: int) -> Callable[[], int]:
        """A function that returns the next block, given that all threads jump or none does."""
        target = END
        if statement.head == "bra":
            target = self._numbers[self._program.labels[_label(self._program, statement)]]
        prelude, mask = self._memories.registers.mask(statement.guard)
        if mask is None:
            return lambda: target

        def decide() -> int:
            for step in prelude:
                step()
            taken = int(np.count_nonzero(mask))
            if 0 < taken < mask.size:
                first = int(np.flatnonzero(mask)[0])
                who = f"{taken} of {mask.size} threads, thread {first} the first, go one way"
                raise KernelFault(f"synccheck: divergent: {who} in {statement}.")
            return target if taken else otherwise

        return decide


def _label(program: Program, statement: Statement) -> str:
    label = str(statement.operands[-1])
    if label not in program.labels:
        raise KernelFault(f"unsupported: {statement}: there is no such label.")
    return label
