"""A launch compiled to PTX and machine code for any target, without a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mminfer_kernels.errors import KernelError
from mminfer_kernels.launch import Launch, Target

TRITON_TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}
WARP = 32


@dataclass(frozen=True)
class Compiled:
    """One launch, compiled for one target."""

    ptx: str
    cubin: bytes
    shared_bytes: int
    """Shared memory of one program."""


def compile_launch(launch: Launch, target: Target) -> Compiled:
    """Return the launch's code for the target; every pointer is aligned to 16 bytes, as PyTorch allocates.

    Raises:
        KernelError: Triton's interpreter is on, so nothing can be compiled.
    """
    if not hasattr(launch.kernel, "params"):
        raise KernelError("Triton's interpreter is on: unset TRITON_INTERPRET and start again.")
    names = launch.kernel.arg_names
    types = {
        name: f"*{TRITON_TYPES[value.dtype]}" if isinstance(value, Tensor) else "i32"
        for name, value in launch.arguments.items()
    }
    source = ASTSource(
        fn=launch.kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in launch.constants.items()},
        attrs={
            (names.index(name),): [["tt.divisibility", 16]]
            for name, value in launch.arguments.items()
            if isinstance(value, Tensor)
        },
    )
    options = {"num_warps": launch.config.num_warps, "num_stages": launch.config.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", target.sm, WARP), options=options)
    return Compiled(compiled.asm["ptx"], compiled.asm["cubin"], compiled.metadata.shared)
