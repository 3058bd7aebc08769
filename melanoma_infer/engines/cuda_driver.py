"""The CUDA driver itself, for programs that have a context of their own, as PyCUDA's; no toolkit is needed.

The CUDA runtime, which PyTorch and TensorRT use, works in each GPU's primary context: it neither waits for the work of
another context, nor leaves one current in the thread that calls it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from melanoma_infer.errors import UsageError

Value = TypeVar("Value")
CONTEXT_OF_POINTER, ORDINAL_OF_POINTER = 1, 9
"""CU_POINTER_ATTRIBUTE_CONTEXT, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL."""


@cache
def load_driver() -> Any:
    """The driver's library, initialised.

    Raises:
        UsageError: there is none.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise UsageError(
            "The pixels are in GPU memory, but there is no NVIDIA driver here. Copy them to host memory first."
        ) from error
    require_success(driver.cuInit(0), "start")
    return driver


def require_success(code: int, what: str) -> None:
    """Require that a call of the driver succeeded.

    Raises:
        UsageError: it did not.
    """
    if code:
        raise UsageError(f"The CUDA driver cannot {what} (error {code}). Copy the pixels to host memory first.")


@contextmanager
def owner_of(pointer: int) -> Iterator[Any]:
    """The driver, with the context that owns this memory current in the block, and with all its work done.

    Memory from a pool belongs to no context; its GPU's primary one is used then.

    Raises:
        UsageError: there is no driver, or it does not know the memory.
    """
    driver = load_driver()
    context, ordinal, address = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_uint64(pointer)
    driver.cuPointerGetAttribute(ctypes.byref(context), CONTEXT_OF_POINTER, address)
    if not context.value:
        found = driver.cuPointerGetAttribute(ctypes.byref(ordinal), ORDINAL_OF_POINTER, address)
        require_success(found, "find the GPU of the pixels")
        require_success(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), ordinal), "use their GPU")
    require_success(driver.cuCtxPushCurrent_v2(context), "make their context current")
    try:
        require_success(driver.cuCtxSynchronize(), "wait for what writes them")
        yield driver
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


@contextmanager
def callers_context() -> Iterator[None]:
    """Leaves the context that is current in the calling thread as it was, whatever the runtime does in the block."""
    try:
        driver = load_driver()
    except UsageError:  # and so no context
        yield
        return
    before = ctypes.c_void_p()
    driver.cuCtxGetCurrent(ctypes.byref(before))
    try:
        yield
    finally:
        if before.value:
            driver.cuCtxSetCurrent(before)


def in_callers_context(values: Iterator[Value]) -> Iterator[Value]:
    """The values, with `callers_context` around the computation of each."""
    while True:
        with callers_context():
            try:
                value = next(values)
            except StopIteration:
                return
        yield value
