"""execute: the PTX of a launch, run on the CPU under every check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from mminfer_proofs.errors import KernelFault
from mminfer_proofs.sanitizer import arena as global_memory
from mminfer_proofs.sanitizer.access import Array
from mminfer_proofs.sanitizer.arena import Arena
from mminfer_proofs.sanitizer.costs import Costs
from mminfer_proofs.sanitizer.cta import Machine
from mminfer_proofs.sanitizer.memory import Memories
from mminfer_proofs.sanitizer.ptx import parse
from mminfer_proofs.sanitizer.registers import Registers
from mminfer_proofs.sanitizer.shared import Shared


@dataclass(frozen=True)
class Far:
    """One program of a launch that is too large for this machine's memory.

    Its arguments begin so far back that the program's correct accesses fall into the small arrays that exist. An offset
    computed in 32 bits falls somewhere else and is a fault.
    """

    program: tuple[int, int, int]
    """The program's id."""
    back_bytes: Mapping[str, int] = field(default_factory=dict)
    """How far back each argument begins: the bytes of the tiles before this one."""


@dataclass(frozen=True)
class Execution:
    """The outputs of a launch and its costs."""

    outputs: Mapping[str, Array]
    """The stored arguments, with their shapes and types."""
    loaded_bytes: Mapping[str, int]
    """By argument: distinct bytes of each instruction; a byte that threads of a CTA load together counts once."""
    stored_bytes: Mapping[str, int]
    sectors: Mapping[str, int]
    """By argument: sectors of 32 bytes that each warp accesses in each instruction."""
    ideal_sectors: Mapping[str, int]
    """Sectors that the same warps' distinct bytes would fill."""
    wavefronts: int
    """Passes through the banks of shared memory."""
    ideal_wavefronts: int
    instructions: int
    """Statements executed, by whole CTAs."""
    disagreements: int
    """Stores to shared memory in which one address got copies of a value that differ by rounding; one was kept."""
    unwritten: Mapping[str, int]
    """By stored argument: bytes that nothing wrote."""


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
    """Run a launch, CTA by CTA, and return its outputs and costs.

    Args:
        ptx: one kernel, for sm_80, sm_86 or sm_89.
        arguments: in the kernel's order: arrays in memory order, bfloat16 as uint16, and int32 numbers. They are not
            changed.
        grid: CTAs along x, y, z.
        shared_bytes: of one CTA.
        stored: the arguments that the launch writes; it may read only what it has written there itself.
        far: run this one program instead of the grid.
        races: whether races are looked for.

    Raises:
        KernelFault: the code did something forbidden ("memcheck: ", "initcheck: ", "racecheck: ", "synccheck: "), or
            contains something unknown ("unsupported: ").
    """
    program = parse(ptx)
    arrays = {name: value for name, value in arguments.items() if not isinstance(value, int)}
    global_memory.refuse_unknown(arrays, stored)
    costs = Costs()
    arena = Arena(arrays, stored, costs, races=races)
    if len(arguments) > len(program.parameters):
        raise KernelFault(f"unsupported: {len(arguments)} arguments for {len(program.parameters)} parameters.")
    # Triton adds pointers to scratch memory after the arguments, which are 0.
    values = dict.fromkeys(program.parameters, 0)
    back_bytes = far.back_bytes if far else {}
    for parameter, (name, value) in zip(program.parameters, arguments.items(), strict=False):
        values[parameter] = value if isinstance(value, int) else arena.address(name) - back_bytes.get(name, 0)
    shared = Shared(shared_bytes, costs, races=races)
    programs = ((x, y, z) for z, y, x in product(*(range(size) for size in reversed(grid))))
    machine = Machine(program, Memories(Registers(program, grid), arena, shared, values))
    for number, program_id in enumerate([far.program] if far else programs):
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
