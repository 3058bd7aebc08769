"""The resources of compiled code: registers and stack from machine code, accesses and arithmetic from PTX."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import triton.backends.nvidia

_TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
_MACHINE_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?);")
_WORD_BITS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128}
_BARE_EXTREME = re.compile(r"\b(?:max|min)(?:\.ftz)?\.(?:f32|f16|f16x2|bf16|bf16x2)\b")
_TENSOR_CORE = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")
_PARAMETER = re.compile(r"ld\.param\.[bu]64\s+(%rd\d+), \[\w+_param_(\d+)\]")
_ACCESS = re.compile(r"\b(ld|st)\.global[\w.:]*?(?:\.v(\d))?\.[busf](\d+)\s[^\[]*\[\s*(%rd\d+)")
_COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global[\w.:]*\s*\[[^\]]*\],\s*\[\s*(%rd\d+)[^\]]*\],\s*(\w+)")
_MOVED = re.compile(r"^(?:@!?%p\d+\s+)?(?!ld|st|cp)[a-z][\w.]*\s+(%rd\d+),\s*(.*)$")


@dataclass(frozen=True)
class MachineCode:
    """The resources of one kernel's machine code."""

    registers: int
    """Per thread."""
    stack_bytes: int
    """Per thread."""
    spill_bytes: int
    """Bytes that a thread writes to the stack: the widths of all such instructions, each counted once."""
    stack_in_loop: bool
    """Whether a loop reads or writes the stack."""


@dataclass(frozen=True)
class Accesses:
    """The widths in bits of a thread's global loads and stores of an argument, one entry for each instruction."""

    load_bits: tuple[int, ...]
    store_bits: tuple[int, ...]


def machine_code(cubin: bytes) -> MachineCode:
    """The resources of a cubin with one kernel, from NVIDIA's cuobjdump."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run([_TOOLS / "cuobjdump", option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    match = _USAGE.search(usage)
    if match is None:
        raise ValueError(f"cuobjdump does not print the registers: {usage.strip() or 'empty output'}")
    lines = [(int(address, 16), text) for address, text in _MACHINE_LINE.findall(code)]
    stack = [(address, text) for address, text in lines if re.search(r"\b(?:STL|LDL)\b", text)]
    branches = [(address, re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)) for address, text in lines]
    # A loop ends with a branch back to its first address; the branch to itself at the end of all code is not a loop.
    loops = [(int(to[1], 16), address) for address, to in branches if to and int(to[1], 16) < address]
    widths = [re.search(r"STL\.(?:\w+\.)*?(U8|S8|U16|S16|64|128)\b", text) for _, text in stack if "STL" in text]
    return MachineCode(
        registers=int(match[1]),
        stack_bytes=int(match[2]),
        spill_bytes=sum((_WORD_BITS[width[1]] if width else 32) // 8 for width in widths),
        stack_in_loop=any(first <= address <= last for address, _ in stack for first, last in loops),
    )


def accesses(ptx: str, arguments: Mapping[str, object]) -> dict[str, Accesses]:
    """The accesses of each argument, in the kernel's order, found by the pointer that an address is computed from."""
    names = list(arguments)
    statements = [line.strip().rstrip(";") for line in ptx.splitlines()]
    # The arguments that each 64-bit register's value is computed from.
    owner: dict[str, set[int]] = defaultdict(set)
    for statement in statements:
        for register, index in _PARAMETER.findall(statement):
            owner[register].add(int(index))
    moves = [(match[1], re.findall(r"%rd\d+", match[2])) for match in map(_MOVED.match, statements) if match]
    before = -1
    while before != (before := sum(map(len, owner.values()))):
        for register, sources in moves:
            owner[register].update(*(owner[source] for source in sources))
    loads: dict[int, list[int]] = defaultdict(list)
    stores: dict[int, list[int]] = defaultdict(list)
    for statement in statements:
        for kind, lanes, bits, register in _ACCESS.findall(statement):
            for index in owner[register]:
                (loads if kind == "ld" else stores)[index].append(int(lanes or 1) * int(bits))
        for register, size in _COPY.findall(statement):
            for index in owner[register]:
                loads[index].append(8 * int(size, 0))
    return {name: Accesses(tuple(loads[i]), tuple(stores[i])) for i, name in enumerate(names)}


def bare_extremes(ptx: str) -> int:
    """The number of floating-point maxima or minima that drop NaN."""
    return len(_BARE_EXTREME.findall(ptx))


def tensor_core_products(ptx: str) -> int:
    """The number of instructions that multiply on the tensor cores."""
    return len(_TENSOR_CORE.findall(ptx))


def rounds_to_tf32(ptx: str) -> bool:
    """Whether float32 operands are rounded to TF32, which drops 13 bits, before a product."""
    return "tf32" in ptx
