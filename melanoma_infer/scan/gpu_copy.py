"""A frame in GPU memory → host memory."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.cuda_driver import owner_of, require_success
from melanoma_infer.engines.device_arrays import DeviceTiles

LEGACY_STREAM = 1
"""CUDA's default stream: the copy runs on it, and DLPack's owner makes it wait for pending writes."""


def copied_to_host(frame: DeviceTiles) -> NDArray[np.uint8]:
    """A copy of a frame, made after everything that its context still does: its owner may not say what writes it.

    Raises:
        UsageError: there is no CUDA driver, or it cannot copy from there.
    """
    pixels = np.empty(frame.shape, np.uint8)
    with owner_of(frame.pointer) as driver:
        to, source = ctypes.c_void_p(pixels.ctypes.data), ctypes.c_uint64(frame.pointer)
        require_success(driver.cuMemcpyDtoH_v2(to, source, ctypes.c_size_t(frame.nbytes)), "copy them")
    return pixels
