"""Tiles that are already in GPU memory, from PyTorch, PyCUDA, CuPy, JAX or a decoder; none of these is imported.

DLPack comes first, because its owner makes our stream wait for what may still be writing. `__cuda_array_interface__`
may name that stream; PyTorch's is too old to, and PyCUDA's names none although its kernels may still run. Then all work
of the context that owns the memory is waited for.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from melanoma_infer.engines.cuda import CudaGpu
from melanoma_infer.engines.cuda_driver import owner_of
from melanoma_infer.errors import UsageError

CUDA = (2, 13)
"""DLPack's device types for memory that a CUDA kernel can read: kDLCUDA and kDLCUDAManaged."""
UNSIGNED = 1
"""DLPack's type code kDLUInt."""
DLPACK = b"dltensor"


@dataclass(frozen=True)
class DeviceTiles:
    """Tiles uint8 (N, tile_px, tile_px, 3), contiguous, in GPU memory."""

    pointer: int
    shape: tuple[int, ...]
    stream: int | None
    """The stream that may still be writing to them; None if there is none, or if it was waited for."""
    owner: object
    """The object that keeps the memory allocated."""

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceTiles:
        start, stop, _ = rows.indices(len(self))
        pointer = self.pointer + start * math.prod(self.shape[1:])
        return DeviceTiles(pointer, (stop - start, *self.shape[1:]), self.stream, self.owner)

    @property
    def nbytes(self) -> int:
        """Their size in bytes."""
        return math.prod(self.shape)


def device_tiles(tiles: Any, gpu: CudaGpu | None, stream: int) -> DeviceTiles | None:
    """The tiles if they are in this GPU's memory, without a copy; None if they are in host memory.

    Args:
        tiles: any array.
        gpu: the GPU that will read them; None: whichever they are on, and the caller waits for all that writes there.
        stream: the handle of the stream that will read them; a DLPack owner makes it wait for pending writes.

    Raises:
        UsageError: they are on another GPU, or are not uint8 or not contiguous, or waiting for pending writes failed.
    """
    if isinstance(tiles, np.ndarray):
        return None
    if hasattr(tiles, "__dlpack_device__"):
        kind, number = tiles.__dlpack_device__()
        if int(kind) not in CUDA:
            return None
        if gpu is not None:
            _require_gpu(int(number), gpu)
            gpu.runtime()  # PyTorch shares tensors of the current GPU only
        return _from_capsule(tiles.__dlpack__(stream=stream))
    described = getattr(tiles, "__cuda_array_interface__", None)
    return None if described is None else _described(described, gpu, tiles)


def _described(described: dict[str, Any], gpu: CudaGpu | None, owner: object) -> DeviceTiles:
    """The tiles that a `__cuda_array_interface__` describes."""
    shape, pointer = tuple(int(size) for size in described["shape"]), int(described["data"][0])
    strides = described.get("strides")
    contiguous = strides is None or _row_major(shape, tuple(int(step) for step in strides))
    _require(described["typestr"] in ("|u1", "<u1", ">u1"), contiguous)
    stream = described.get("stream")
    if gpu is None:
        return DeviceTiles(pointer, shape, None, owner)
    if math.prod(shape):
        _require_gpu(gpu.number_of(pointer), gpu)
    if not stream and 0 not in shape:  # 0 is not allowed, because it may mean either of two
        with owner_of(pointer):
            stream = None
    return DeviceTiles(pointer, shape, stream, owner)


class _DLDevice(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _DLTensor(ctypes.Structure):
    """DLPack's DLTensor, the first field of a DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _DLDevice),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_capsule(capsule: object) -> DeviceTiles:
    """The tensor in a DLPack capsule. The capsule keeps ownership, and frees the tensor when the last row is gone."""
    tensor = _tensor_in(capsule)
    shape = tuple(tensor.shape[: tensor.ndim])
    contiguous = not tensor.strides or _row_major(shape, tuple(tensor.strides[: tensor.ndim]))
    _require((tensor.code, tensor.bits, tensor.lanes) == (UNSIGNED, 8, 1), contiguous)
    return DeviceTiles((tensor.data or 0) + tensor.byte_offset, shape, None, capsule)


def _tensor_in(capsule: object) -> _DLTensor:
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype, address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return _DLTensor.from_address(address(capsule, DLPACK))


def _row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether an array of bytes is row-major without gaps; an axis of length 1 may have any stride."""
    expected = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return all(size == 1 or step == want for size, step, want in zip(shape, strides, expected, strict=True))


def _require_gpu(number: int | None, gpu: CudaGpu) -> None:
    if number != gpu.number:
        place = "not in GPU memory" if number is None else f"on cuda:{number}"
        raise UsageError(f"The tiles are {place}, but the engine is on cuda:{gpu.number}. Use one GPU.")


def _require(is_uint8: bool, contiguous: bool) -> None:
    if not is_uint8:
        raise UsageError("Tiles on a GPU must be uint8 (N, tile_px, tile_px, 3). Pass them before any normalisation.")
    if not contiguous:
        raise UsageError("Tiles on a GPU must be contiguous, channels last. Call .contiguous() or copy them first.")
