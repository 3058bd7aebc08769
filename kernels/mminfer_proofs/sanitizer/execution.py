"""execute: the PTX of a launch, run on the CPU under every check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer import arena as global_memory
from mminfer_proofs.sanitizer.access import Array
from mminfer_proofs.sanitizer.arena import Arena
from mminfer_proofs.sanitizer.costs import Costs
from mminfer_proofs.sanitizer.cta import Machine
from mminfer_proofs.sanitizer.memory import Memories
from mminfer_proofs.sanitizer.ptx import Program, parse
from mminfer_proofs.sanitizer.registers import Registers
from mminfer_proofs.sanitizer.shared import Shared


@dataclass(frozen=True)
class Far:
    """One program of a launch too large for any memory here.

    Its arguments begin so far back that what the program should touch falls into the small arrays that are there. An
    offset computed in 32 bits then falls somewhere else, and is a fault.
    """

    program: tuple[int, int, int]
    """The program's id."""
    back_bytes: Mapping[str, int] = field(default_factory=dict)
    """How far back each argument begins: the bytes of the tiles before this one."""


@dataclass(frozen=True)
class Execution:
    """What a launch wrote and what it cost."""

    outputs: Mapping[str, Array]
    """The arguments that are stored, of their shapes and types."""
    loaded_bytes: Mapping[str, int]
    """By argument: different bytes, instruction by instruction; what threads of a CTA load together counts once."""
    stored_bytes: Mapping[str, int]
    sectors: Mapping[str, int]
    """By argument: sectors of 32 bytes that each warp touches in each instruction."""
    ideal_sectors: Mapping[str, int]
    """Those that the same warps' different bytes would fill."""
    wavefronts: int
    """Passes through the banks of shared memory."""
    ideal_wavefronts: int
    instructions: int
    """Statements executed, by whole CTAs."""
    disagreements: int
    """Stores to shared memory in which copies of one value, rounded apart, met at one address; one of them was kept."""
    unwritten: Mapping[str, int]
    """Bytes that nothing wrote, by stored argument."""


def execute(
    ptx: str,
    arguments: Mapping[str, Array | int],
    grid: tuple[int, int, int],
    shared_bytes: int,
    *,
    stored: Sequence[str] = (),
    far: Far | None = None,
    races: bool = True,
) -> Execution:
    """Run a launch, CTA by CTA, and return what it wrote and what it cost.

    Args:
        ptx: one kernel, for sm_80, sm_86 or sm_89.
        arguments: in the kernel's order: arrays as they lie in memory, bfloat16 as uint16, and int32 numbers. They are
            left as they are.
        grid: CTAs along x, y, z.
        shared_bytes: of one CTA.
        stored: the arguments that the launch writes; it may read there only what it has written itself.
        far: run this one program instead of the grid.
        races: look for races too.

    Raises:
        KernelFault: the code did something forbidden ("memcheck: ", "initcheck: ", "racecheck: ", "synccheck: "), or
            has something in it that is not known here ("unsupported: ").
    """
    program = parse(ptx)
    arrays = {name: value for name, value in arguments.items() if not isinstance(value, int)}
    global_memory.refuse_unknown(arrays, stored)
    costs = Costs()
    arena = Arena(arrays, stored, costs, races=races)
    values = _parameters(program, arguments, arena, far.back_bytes if far else {})
    shared = Shared(shared_bytes, costs, races=races)
    machine = Machine(program, Memories(Registers(program, grid), arena, shared, values))
    for number, program_id in enumerate([far.program] if far else _programs(grid)):
        machine.run(program_id, number)
    return Execution(
        outputs={buffer.name: buffer.result() for buffer in arena.buffers if buffer.stored},
        loaded_bytes=dict(costs.loaded_bytes),
        stored_bytes=dict(costs.stored_bytes),
        sectors=dict(costs.sectors),
        ideal_sectors=dict(costs.ideal_sectors),
        wavefronts=costs.wavefronts,
        ideal_wavefronts=costs.ideal_wavefronts,
        instructions=machine.instructions,
        disagreements=costs.disagreements,
        unwritten=global_memory.unwritten(arena),
    )


def _programs(grid: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """The ids of a grid's programs, x first."""
    return ((x, y, z) for z, y, x in product(*(range(size) for size in reversed(grid))))


def _parameters(
    program: Program, arguments: Mapping[str, Array | int], arena: Arena, back_bytes: Mapping[str, int]
) -> dict[str, int]:
    """The value of every parameter; those that Triton adds behind the arguments, pointers to scratch memory, are 0."""
    if len(arguments) > len(program.parameters):
        raise KernelFault(f"unsupported: {len(arguments)} arguments for {len(program.parameters)} parameters.")
    values = [
        value if isinstance(value, int) else arena.address(name) - back_bytes.get(name, 0)
        for name, value in arguments.items()
    ]
    added = [0] * (len(program.parameters) - len(values))
    return dict(zip(program.parameters, values + added, strict=True))
