"""The code of a TensorRT plugin: a launch's PTX whose parameters are exactly the plugin's inputs and then its outputs.

TensorRT launches the kernel of an ahead-of-time plugin with a pointer for each input, the plugin's extra arguments
(ours have none) and a pointer for each output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from mminfer_kernels.compile import WARP, compile_launch
from mminfer_kernels.errors import KernelError
from mminfer_kernels.launch import Launch, Target

SHARED_LIMIT_BYTES = 48 * 1024
"""What every launch may have. For more, the kernel's limit must be raised first, which a plugin cannot ask for."""
ENTRY = re.compile(r"\.visible \.entry (\w+)\(([^)]*)\)")
PARAMETER = re.compile(r"\.param\s[^,]*?(\w+)\s*(?:,|$)")


@dataclass(frozen=True)
class PluginCode:
    """What TensorRT needs of a kernel, besides its grid."""

    entry: str
    """The kernel's name in the PTX."""
    ptx: str
    threads: int
    """Threads of one program."""
    shared_bytes: int
    """Shared memory of one program."""


def inputs_of(launch: Launch) -> tuple[str, ...]:
    """The names of the plugin's inputs, in the kernel's order; its outputs are `launch.stored`.

    Raises:
        KernelError: the kernel's parameters are not pointers to the inputs and then to the outputs.
    """
    names = tuple(launch.arguments)
    inputs = tuple(name for name in names if name not in launch.stored)
    numbers = [name for name, value in launch.arguments.items() if not isinstance(value, Tensor)]
    if names != (*inputs, *launch.stored) or numbers:
        raise KernelError(
            f"{launch.name} cannot be a TensorRT plugin: its arguments are {', '.join(names)}, but TensorRT passes "
            f"{', '.join((*inputs, *launch.stored))}, all of them pointers."
        )
    return inputs


def plugin_code(launch: Launch, target: Target) -> PluginCode:
    """Compile a launch for a target, as the code of a plugin.

    Raises:
        KernelError: the kernel does not take its arguments as TensorRT passes them, uses one of Triton's own
            parameters, or needs more shared memory than a plugin gets.
    """
    inputs = inputs_of(launch)
    compiled = compile_launch(launch, target)
    if compiled.shared_bytes > SHARED_LIMIT_BYTES:
        raise KernelError(
            f"{launch.name} cannot be a TensorRT plugin: it needs {compiled.shared_bytes:,} bytes of shared memory, "
            f"and a plugin gets {SHARED_LIMIT_BYTES:,}."
        )
    ptx = without_places(without_hidden_parameters(compiled.ptx, len(inputs) + len(launch.stored)))
    entry = ENTRY.search(ptx)
    assert entry is not None  # without_hidden_parameters has found it
    return PluginCode(entry[1], ptx, WARP * launch.config.num_warps, compiled.shared_bytes)


def without_hidden_parameters(ptx: str, count: int) -> str:
    """PTX whose kernel has the first `count` parameters alone.

    Triton appends pointers to its own scratch memory, which TensorRT does not pass. They may go if nothing but the
    kernel's header names them.

    Raises:
        KernelError: there is not one kernel with at least so many parameters, or the code names one of the others.
    """
    entries = list(ENTRY.finditer(ptx))
    names = PARAMETER.findall(entries[0][2]) if len(entries) == 1 else []
    if len(names) < count or count == 0:
        raise KernelError(f"PTX with {len(entries)} kernels and {len(names)} parameters, where {count} are needed.")
    for name in names[count:]:
        if len(re.findall(rf"\b{name}\b", ptx)) > 1:
            raise KernelError(f"The kernel uses {name}, a pointer to Triton's scratch memory, which TensorRT lacks.")
    start, end = entries[0].span(2)
    kept = ",".join(entries[0][2].split(",")[:count])
    return f"{ptx[:start]}{kept.rstrip()}\n{ptx[end:]}"


def without_places(ptx: str) -> str:
    """PTX without the sections and lines for debuggers: they hold the paths of the sources on this machine."""
    lines = ptx.splitlines()
    end = next((number for number, line in enumerate(lines) if line.lstrip().startswith(".section")), len(lines))
    places = (".loc", ".file")
    return "\n".join(line for line in lines[:end] if not line.lstrip().startswith(places)) + "\n"
