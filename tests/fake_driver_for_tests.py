"""A drawn CUDA driver beside the fake runtime, and a drawn PyCUDA on it, whose context is its own."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
from fake_cuda_for_tests import PRIMARY, Block, FakeCuda, Queue

INVALID = 1
OWNER, ORDINAL = 1, 9


class FakeDriver:
    """The functions of libcuda that mminfer calls, and contexts that a program makes itself."""

    def __init__(self, gpu: FakeCuda) -> None:
        self.gpu = gpu
        self.contexts: dict[int, Queue] = {}
        """The work of each context but the primary ones, which the runtime neither runs nor waits for."""
        self.owners: dict[int, int] = {}
        """The context of memory that belongs to none of the primary ones, by its address."""
        self._below: list[tuple[int | None, int]] = []

    def new_context(self, device: int) -> int:
        """Make a context, which is current then, as cuCtxCreate does."""
        handle = PRIMARY + 0x100 + len(self.contexts)
        self.contexts[handle] = Queue(device)
        self.gpu.context, self.gpu.current = handle, device
        return handle

    def allocate(self, array: np.ndarray) -> int:
        """Memory of the context that is current, with the array's bytes."""
        pointer = self.gpu.allocate(array.nbytes, self.gpu.current)
        self.gpu.live[pointer].content[: array.nbytes] = array.reshape(-1)
        self.gpu.live[pointer].is_written = True
        self.owners[pointer] = self.gpu.context
        return pointer

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802
        context._obj.value = self.gpu.context
        return 0

    def cuCtxSetCurrent(self, context: ctypes.c_void_p) -> int:  # noqa: N802
        self._enter(context.value)
        return 0

    def cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:  # noqa: N802
        self._below.append((self.gpu.context, self.gpu.current))
        self._enter(context.value)
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:  # noqa: N802
        context._obj.value = self.gpu.context
        self.gpu.context, self.gpu.current = self._below.pop()
        return 0

    def cuCtxSynchronize(self) -> int:  # noqa: N802
        if (work := self.contexts.get(self.gpu.context or 0)) is not None:
            work.run()
        else:
            self.gpu.run_all()
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:  # noqa: N802
        context._obj.value = PRIMARY + device.value
        return 0

    def cuPointerGetAttribute(self, value: Any, attribute: int, address: ctypes.c_uint64) -> int:  # noqa: N802
        for start, block in self.gpu.live.items():
            if isinstance(block, Block) and start <= address.value < start + block.content.nbytes:
                value._obj.value = self.owners.get(start) if attribute == OWNER else block.device
                return 0
        return INVALID

    def cuMemcpyDtoH_v2(self, to: ctypes.c_void_p, source: ctypes.c_uint64, size: ctypes.c_size_t) -> int:  # noqa: N802
        self.gpu.require_current(self.gpu.block(source.value, size.value).device, "memory")
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def _enter(self, context: int) -> None:
        self.gpu.context = context
        self.gpu.current = self.contexts[context].device if context in self.contexts else context - PRIMARY


class GPUArray:
    """As `pycuda.gpuarray.GPUArray`: its interface names no stream, although its arithmetic is asynchronous."""

    def __init__(self, driver: FakeDriver, array: np.ndarray) -> None:
        if driver.gpu.context not in driver.contexts:
            raise RuntimeError("cuMemAlloc failed: invalid device context")
        self._driver, self.shape, self.dtype = driver, array.shape, array.dtype
        self.ptr = self.gpudata = driver.allocate(array)
        self.__cuda_array_interface__ = {
            "shape": array.shape, "strides": array.strides, "data": (self.ptr, False), "typestr": array.dtype.str,
            "stream": None, "version": 3,
        }  # fmt: skip

    def __rsub__(self, value: int) -> GPUArray:
        result = GPUArray(self._driver, np.zeros(self.shape, self.dtype))
        given, taken = self._driver.gpu.live[result.ptr], self._driver.gpu.live[self.ptr]
        work = self._driver.contexts[self._driver.gpu.context]
        work.add(lambda: np.subtract(value, taken.content, out=given.content))
        return result


def drawn_pycuda(driver: FakeDriver, device: int = 0) -> dict[str, ModuleType]:
    """The modules of PyCUDA that a program imports, by name, once `pycuda.autoinit` has made its context."""
    names = ("pycuda", "pycuda.autoinit", "pycuda.gpuarray")
    package, autoinit, gpuarray = modules = [ModuleType(name) for name in names]
    autoinit.device = type("Device", (), {"name": lambda self: "a drawn GPU"})()
    autoinit.context = driver.new_context(device)
    gpuarray.GPUArray, gpuarray.to_gpu = GPUArray, lambda array: GPUArray(driver, array)
    package.autoinit, package.gpuarray = autoinit, gpuarray
    return dict(zip(names, modules, strict=True))
