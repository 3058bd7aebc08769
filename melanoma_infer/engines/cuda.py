"""A GPU through the CUDA runtime: find it, and give out memory, streams and events that free themselves.

Every call runs on the chosen GPU, and its error becomes one of the DeviceErrors of `device`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.device import DeviceError, DeviceLostError, DeviceMemoryError
from melanoma_infer.engines.tensorrt_api import in_one_line, is_out_of_memory
from melanoma_infer.errors import EngineUnavailableError


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine."""

    number: int
    name: str
    target: str
    """Its compute capability: sm86, …"""


def import_cuda() -> Any:
    """The bindings of the CUDA runtime, `cuda.bindings.runtime`.

    Raises:
        EngineUnavailableError: they are not installed, or do not load.
    """
    try:
        return import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineUnavailableError(
            f"cuda-python does not load here ({in_one_line([str(error)])}). Install it: pip install cuda-bindings."
        ) from error


def find_gpu(cuda: Any, device: str | None) -> Gpu:
    """The GPU with that name: None or "cuda" for the first one, "cuda:1" and so on.

    Raises:
        EngineUnavailableError: there is no such GPU.
    """
    error, count = cuda.cudaGetDeviceCount()
    if error or not count:
        reason = _text(cuda, error) if error else "no CUDA device"
        advice = "Check that nvidia-smi shows it, or use --engine openvino."
        if error == cuda.cudaError_t.cudaErrorInsufficientDriver:
            advice = (
                "CUDA 13 needs a driver from 580 on (nvidia-smi shows yours). Update it, or install what runs with "
                "drivers from 525 on: pip install 'mminfer[tensorrt-cu12]', without mminfer[tensorrt]."
            )
        raise EngineUnavailableError(f"CUDA finds no GPU here ({reason}). {advice}")
    kind, _, number = (device or "cuda").partition(":")
    if kind != "cuda" or not (number or "0").isdecimal() or int(number or 0) >= count:
        raise EngineUnavailableError(f"There is no CUDA device {device!r}. Omit --device, or use --engine openvino.")
    error, found = cuda.cudaGetDeviceProperties(int(number or 0))
    if error:
        raise EngineUnavailableError(
            f"The properties of the GPU cannot be read ({_text(cuda, error)}). Use --engine openvino."
        )
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return Gpu(int(number or 0), name.rstrip("\0"), f"sm{found.major}{found.minor}")


@dataclass(frozen=True, eq=False)
class Memory:
    """Contiguous rows in device memory, freed with the last reference."""

    pointer: int
    row_bytes: int


@dataclass(frozen=True, eq=False)
class Handle:
    """A stream, event or graph, destroyed with the last reference; the bindings allow no weak references."""

    value: Any


class PinnedArray:
    """Page-locked host memory that implements NumPy's array interface; freed with the last array that views it."""

    def __init__(self, pointer: int, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": np.dtype(dtype).str, "data": (pointer, False),
        }  # fmt: skip


class CudaGpu:
    """One GPU, used through the CUDA runtime; every method may raise a DeviceError.

    Args:
        cuda: `cuda.bindings.runtime`.
        number: of the GPU.
    """

    def __init__(self, cuda: Any, number: int) -> None:
        self._cuda = cuda
        self.number = number

    def runtime(self) -> Any:
        """The CUDA runtime, set to this GPU in the calling thread."""
        self.value(self._cuda.cudaSetDevice(self.number))
        return self._cuda

    def value(self, answer: tuple[Any, ...]) -> Any:
        """The value that a CUDA call returned.

        Raises:
            DeviceError: the call failed.
        """
        error, *values = answer
        if not error:
            return values[0] if values else None
        text = _text(self._cuda, error)
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            self._cuda.cudaGetLastError()  # it is not sticky, but the next call would report it again
            raise DeviceMemoryError(text)
        raise self.failure(text)

    def failure(self, text: str, reports: Sequence[str] = ()) -> DeviceError:
        """The error for a failure: memory ran out (also if only a library says so), the GPU is lost, or another."""
        self._cuda.cudaGetLastError()
        if is_out_of_memory(" ".join([text, *reports])):
            return DeviceMemoryError(text)
        # An error that corrupts the CUDA context is returned by every later call, even by one that only waits.
        self._cuda.cudaSetDevice(self.number)
        return DeviceLostError(text) if self._cuda.cudaDeviceSynchronize()[0] else DeviceError(text)

    def number_of(self, pointer: int) -> int | None:
        """The number of the GPU whose memory holds this address; None if it is not GPU memory."""
        kinds = self._cuda.cudaMemoryType
        found = self.value(self._cuda.cudaPointerGetAttributes(pointer))
        on_gpu = found.type in (kinds.cudaMemoryTypeDevice, kinds.cudaMemoryTypeManaged)
        return int(found.device) if on_gpu else None

    def synchronize(self) -> None:
        """Make the host wait for all work on this GPU."""
        self.value(self.runtime().cudaDeviceSynchronize())

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Page-locked host memory, all zeros, freed with the array."""
        cuda = self.runtime()
        pointer = self.value(cuda.cudaHostAlloc(_nbytes(shape, dtype), cuda.cudaHostAllocDefault))
        memory = PinnedArray(int(pointer), shape, dtype)
        _free_with(memory, cuda.cudaFreeHost, pointer)
        array = np.asarray(memory)
        array[...] = 0
        return array

    def zeros(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Memory:
        """Device memory, all zeros."""
        memory = self.allocate(_nbytes(shape, dtype), _nbytes(shape[1:], dtype))
        self.value(self.runtime().cudaMemset(memory.pointer, 0, _nbytes(shape, dtype)))
        self.synchronize()
        return memory

    def allocate(self, size: int, row_bytes: int) -> Memory:
        """`size` bytes of device memory, not initialised."""
        cuda = self.runtime()
        pointer = self.value(cuda.cudaMalloc(max(size, 1)))
        memory = Memory(int(pointer), row_bytes)
        _free_with(memory, cuda.cudaFree, pointer)
        return memory

    def stream(self) -> Handle:
        """A new stream that does not synchronise with the default stream."""
        cuda = self.runtime()
        return owned(self.value(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)), cuda.cudaStreamDestroy)

    def record(self, stream: Any) -> Handle:
        """An event after all work in the stream; the host sleeps while it waits, because decoding needs the cores."""
        cuda = self.runtime()
        flags = cuda.cudaEventBlockingSync | cuda.cudaEventDisableTiming
        event = owned(self.value(cuda.cudaEventCreateWithFlags(flags)), cuda.cudaEventDestroy)
        self.value(cuda.cudaEventRecord(event.value, stream))
        return event


def owned(value: Any, destroy: Any) -> Handle:
    """A handle for `value`; `destroy(value)` is called with its last reference."""
    handle = Handle(value)
    _free_with(handle, destroy, value)
    return handle


def _free_with(owner: object, free: Any, handle: Any) -> None:
    """Call `free(handle)` when the owner is garbage; not at exit, when the driver may be unloaded already."""
    weakref.finalize(owner, free, handle).atexit = False


def _nbytes(shape: tuple[int, ...], dtype: type[np.generic]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _text(cuda: Any, error: Any) -> str:
    _, text = cuda.cudaGetErrorString(error)
    return str(text.decode() if isinstance(text, bytes) else text)
