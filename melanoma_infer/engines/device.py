"""The seam between batching and a GPU: the few calls that buffers, streams and captured programs need.

An engine for a GPU implements `Device` with its runtime (PyTorch, or cuda-python for TensorRT); `batching` does the
rest. Work on one stream is done in the order given, streams run beside each other, and only `synchronize` and `release`
have to wait for it.

::

    DeviceError               a call failed, and the GPU still works
    ├── DeviceMemoryError     memory ran out, on the GPU or of the pinned kind
    └── DeviceLostError       no call on this GPU will succeed in this process again
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Buffer = Any
"""Device memory with a first axis of rows; only its device looks inside, as with the next two."""
Program = Any
"""The network's forward pass for one batch size, bound to buffers; a CUDA graph where the runtime captures one."""
Event = Any
"""A point in a stream."""

DRIVER_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What a loaded NVIDIA driver makes, on Linux and in the Windows Subsystem for Linux."""


class DeviceError(Exception):
    """A call failed, and the GPU still works; the message is the runtime's first line."""


class DeviceMemoryError(DeviceError):
    """Memory ran out."""


class DeviceLostError(DeviceError):
    """No call on this GPU will succeed in this process again."""


class Stream(Enum):
    """The three streams of a device: copies in both directions run beside the computing."""

    UPLOAD = "upload"
    COMPUTE = "compute"
    DOWNLOAD = "download"


class Device(Protocol):
    """A GPU through one runtime. Every call may raise a DeviceError; an error of work that runs later comes later."""

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Page-locked host memory, which copies do not have to wait for."""
        ...

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Buffer:
        """Device memory."""
        ...

    def program(self, tiles: Buffer, outputs: Mapping[str, Buffer], rows: int) -> Program:
        """The forward pass from the first rows of `tiles` to the first rows of `outputs`; may write into `outputs`."""
        ...

    def upload(self, source: Any, target: Buffer) -> None:
        """Copy pinned rows, or rows that lie on the GPU where the device takes them, to the first rows of a buffer.

        On the stream UPLOAD.
        """
        ...

    def launch(self, program: Program) -> None:
        """Run a program on the stream COMPUTE."""
        ...

    def download(self, source: Buffer, target: NDArray[Any]) -> None:
        """Copy the first rows of a buffer to as many pinned rows, on the stream DOWNLOAD."""
        ...

    def record(self, stream: Stream) -> Event:
        """The point in a stream at which all that was given to it so far is done."""
        ...

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what is given to a stream from now on begin after an event."""
        ...

    def synchronize(self, event: Event) -> None:
        """Return when an event has happened."""
        ...

    def release(self) -> None:
        """Return when nothing runs any more, and memory without an owner is the GPU's again."""
        ...


def nvidia_driver_is_loaded() -> bool:
    """Whether this machine has an NVIDIA driver; it needs no runtime to tell, and a GPU may still be missing."""
    return any(path.exists() for path in DRIVER_FILES)
