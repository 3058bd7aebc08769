"""A frame in GPU memory → host memory, by the CUDA driver alone: no toolkit and no other library is needed."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.device_arrays import DeviceTiles
from melanoma_infer.errors import UsageError

LEGACY_STREAM = 1
"""CUDA's default stream: the copy runs on it, and DLPack's owner makes it wait for pending writes."""
CONTEXT_OF_POINTER, ORDINAL_OF_POINTER = 1, 9
"""CU_POINTER_ATTRIBUTE_CONTEXT, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL."""


def copied_to_host(frame: DeviceTiles) -> NDArray[np.uint8]:
    """A copy of a frame, made after everything that its context still does: its owner may not say what writes it.

    Raises:
        UsageError: there is no CUDA driver, or it cannot copy from there.
    """
    driver = _driver()
    pixels = np.empty(frame.shape, np.uint8)
    _checked(driver.cuCtxPushCurrent_v2(_context_of(driver, frame.pointer)), "make the frame's context current")
    try:
        _checked(driver.cuCtxSynchronize(), "wait for what writes the frame")
        to, source = ctypes.c_void_p(pixels.ctypes.data), ctypes.c_uint64(frame.pointer)
        _checked(driver.cuMemcpyDtoH_v2(to, source, ctypes.c_size_t(frame.nbytes)), "copy the frame")
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    return pixels


def _context_of(driver: ctypes.CDLL, pointer: int) -> ctypes.c_void_p:
    """The context that owns memory; for memory from a pool, which no context owns, its GPU's primary one."""
    context, ordinal, address = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_uint64(pointer)
    driver.cuPointerGetAttribute(ctypes.byref(context), CONTEXT_OF_POINTER, address)
    if not context.value:
        _checked(driver.cuPointerGetAttribute(ctypes.byref(ordinal), ORDINAL_OF_POINTER, address), "find its GPU")
        _checked(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), ordinal), "use its GPU")
    return context


@cache
def _driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise UsageError(
            "The frame is in GPU memory, but there is no NVIDIA driver here. Copy it to host memory before you push it."
        ) from error
    _checked(driver.cuInit(0), "start")
    return driver


def _checked(code: int, what: str) -> None:
    if code:
        raise UsageError(
            f"The CUDA driver cannot {what} (error {code}). Copy the frame to host memory before you push it."
        )
