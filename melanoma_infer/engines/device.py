"""The interface between `batching` and a GPU: the few calls that buffers, streams and captured programs need.

A GPU engine implements `Device` with its runtime (PyTorch, or cuda-python for TensorRT); `batching` does the rest. Work
on one stream runs in the order in which it was submitted, streams run concurrently, and only `synchronize` and
`release` wait.

::

    DeviceError               a call failed, but the GPU still works
    ├── DeviceMemoryError     GPU memory or pinned host memory ran out
    └── DeviceLostError       no call on this GPU will succeed again in this process
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Buffer = Any
"""Device memory whose first axis is rows. Opaque to all but its device, as are Program and Event."""
Program = Any
"""The network's forward pass for one batch size, bound to buffers; a CUDA graph if the runtime can capture one."""
Event = Any
"""A point in a stream."""


def driver_files(platform: str, windows: Path) -> tuple[Path, ...]:
    """Files of which one exists where an NVIDIA driver is installed.

    Args:
        platform: as `sys.platform`.
        windows: the folder of Windows; ignored elsewhere.

    Returns:
        On Windows the driver's library; elsewhere the device files that a loaded driver creates, on Linux and in the
        Windows Subsystem for Linux.
    """
    if platform == "win32":
        return (windows / "System32" / "nvcuda.dll",)
    return (Path("/dev/nvidiactl"), Path("/dev/dxg"))


DRIVER_FILES = driver_files(sys.platform, Path(os.environ.get("SYSTEMROOT", "C:/Windows")))


class DeviceError(Exception):
    """A call failed, but the GPU still works; the message is the first line of the runtime's."""


class DeviceMemoryError(DeviceError):
    """GPU memory or pinned host memory ran out."""


class DeviceLostError(DeviceError):
    """No call on this GPU will succeed again in this process."""


class Stream(Enum):
    """The three streams of a device: copies in both directions run while the network computes."""

    UPLOAD = "upload"
    COMPUTE = "compute"
    DOWNLOAD = "download"


class Device(Protocol):
    """A GPU used through one runtime.

    Any call may raise a DeviceError; one from queued work may only surface in a later call.
    """

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Page-locked host memory, which can be copied asynchronously."""
        ...

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Buffer:
        """Device memory."""
        ...

    def program(self, tiles: Buffer, outputs: Mapping[str, Buffer], rows: int) -> Program:
        """The forward pass from the first rows of `tiles` to those of `outputs`; may already write to `outputs`."""
        ...

    def upload(self, source: Any, target: Buffer, first: int = 0) -> None:
        """Copy rows to those of a buffer from `first` on, on the stream UPLOAD.

        The rows are in pinned memory, or on the GPU if the device accepts that.
        """
        ...

    def launch(self, program: Program) -> None:
        """Run a program on the stream COMPUTE."""
        ...

    def download(self, source: Buffer, target: NDArray[Any]) -> None:
        """Copy the first rows of a buffer to pinned memory, as many as fit, on the stream DOWNLOAD."""
        ...

    def record(self, stream: Stream) -> Event:
        """An event that occurs when all work submitted to the stream so far is done."""
        ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Make work submitted to the stream from now on wait for the event."""
        ...

    def synchronize(self, event: Event) -> None:
        """Return when the event has occurred."""
        ...

    def release(self) -> None:
        """Wait until all work is done, and free the memory that nothing refers to any more."""
        ...


def nvidia_driver_is_loaded() -> bool:
    """Whether this machine has an NVIDIA driver. Needs no runtime to check; a GPU may still be missing."""
    return any(path.exists() for path in DRIVER_FILES)
