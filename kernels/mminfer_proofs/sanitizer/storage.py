"""Conversion between tensors and the sanitizer's arrays, and the execution of a `Launch`."""

from __future__ import annotations

import torch
from torch import Tensor

from mminfer_kernels.errors import KernelInputError
from mminfer_kernels.launch import Launch
from mminfer_proofs.sanitizer.access import Array
from mminfer_proofs.sanitizer.execution import Execution, Far, execute


def storage_of(tensor: Tensor) -> Array:
    """The tensor's elements in memory order: dimensions by falling stride, bfloat16 as uint16.

    A channels-last (N, C, h, w) gives (N, h, w, C).

    Raises:
        KernelInputError: there are gaps between the elements.
    """
    dense = tensor.detach().permute(_memory_order(tensor))
    if not dense.is_contiguous():
        raise KernelInputError(f"{tuple(tensor.shape)} with strides {tensor.stride()} has gaps: call .contiguous().")
    array: Array = (dense.view(torch.uint16) if dense.dtype == torch.bfloat16 else dense).cpu().numpy()
    return array


def tensor_like(array: Array, tensor: Tensor) -> Tensor:
    """A tensor with another's shape, dtype and strides, and the elements of an array in the order of `storage_of`."""
    order = _memory_order(tensor)
    flat = torch.from_numpy(array.copy())
    dense = flat.view(torch.bfloat16) if tensor.dtype == torch.bfloat16 else flat
    return dense.permute([order.index(dimension) for dimension in range(tensor.dim())]).to(tensor.device)


def arguments_of(launch: Launch) -> dict[str, Array | int]:
    """A launch's arguments in the form that `execute` takes."""
    return {name: value if isinstance(value, int) else storage_of(value) for name, value in launch.arguments.items()}


def run_launch(launch: Launch, ptx: str, shared_bytes: int, *, far: Far | None = None, races: bool = True) -> Execution:
    """Execute a launch's PTX, copy its outputs to the launch's tensors, and return the execution.

    Raises:
        KernelFault: as `execute`.
    """
    done = execute(ptx, arguments_of(launch), launch.grid, shared_bytes, stored=launch.stored, far=far, races=races)
    for name in launch.stored:
        tensor = launch.arguments[name]
        if isinstance(tensor, Tensor):
            tensor.copy_(tensor_like(done.outputs[name], tensor))
    return done


def _memory_order(tensor: Tensor) -> list[int]:
    """The dimensions from the largest stride to the smallest; the order of equal strides is kept."""
    strides: tuple[int, ...] = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda dimension: (-strides[dimension], dimension))
