"""A fake GPU behind `cuda.bindings.runtime`: every call is bound to its real signature, and a misuse is an error.

Memory is NumPy's, and streams are queues that run as late as allowed. A misuse is what a real GPU might forgive today
and not tomorrow: a call while another device is current, a read before the write, memory that was released, a copy
beyond a buffer's end, a handle that was destroyed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from bindings_for_tests import check_cuda_call, runtime

SUCCESS = runtime.cudaError_t.cudaSuccess
OUT_OF_MEMORY = runtime.cudaError_t.cudaErrorMemoryAllocation
ILLEGAL_ADDRESS = runtime.cudaError_t.cudaErrorIllegalAddress
INSUFFICIENT_DRIVER = runtime.cudaError_t.cudaErrorInsufficientDriver
CAPTURE_INVALIDATED = runtime.cudaError_t.cudaErrorStreamCaptureInvalidated
HOST = None
"""The device of pinned memory."""
LEGACY_DEFAULT_STREAM = 1
ON_ANY_DEVICE = frozenset(
    [
        "cudaGetDeviceCount",
        "cudaGetDeviceProperties",
        "cudaSetDevice",
        "cudaGetErrorString",
        "cudaGetLastError",
        "cudaFree",
        "cudaFreeHost",
        "cudaStreamDestroy",
        "cudaEventDestroy",
        "cudaGraphDestroy",
        "cudaGraphExecDestroy",
        "cudaPointerGetAttributes",
    ]
)
"""Calls whose effect does not depend on the current device."""
PRIMARY = 0x9000
"""The handle of the primary context of GPU 0; GPU 1 has the next."""
WITHOUT_STICKY_ERROR = frozenset(
    {"cudaGetErrorString", "cudaGetLastError", "cudaSetDevice", "cudaFree", "cudaFreeHost"}
)


class MisuseError(AssertionError):
    """A call that a program must not rely on, although a real GPU may let it pass."""


class CudaFailureError(Exception):
    """A call that reports an error."""

    def __init__(self, error: Any) -> None:
        self.error = error


@dataclass
class Block:
    """Memory of a device, or pinned host memory."""

    device: int | None
    content: np.ndarray
    is_written: bool = False
    """Whether anything was ever stored there."""
    is_fresh: bool = False
    """Whether it was stored since it was last taken: tiles by a program, outputs by a download."""

    def take(self, otherwise: str) -> None:
        """Mark it as taken; a MisuseError with the words `otherwise` unless it is fresh."""
        if not self.is_fresh:
            raise MisuseError(otherwise)
        self.is_fresh = False


@dataclass
class Queue:
    """A stream of a device: work in order, done when something waits for it."""

    device: int
    work: list[Callable[[], None]] = field(default_factory=list)
    done: int = 0
    capturing: list[Callable[[], None]] | None = None

    def add(self, work: Callable[[], None]) -> None:
        (self.work if self.capturing is None else self.capturing).append(work)

    def run(self, until: int | None = None) -> None:
        until = len(self.work) if until is None else until
        while self.done < until:
            self.done += 1  # first: work may lead back here
            self.work[self.done - 1]()


@dataclass
class Recorded:
    """An event: all work of a queue up to a point, once it was recorded."""

    device: int
    queue: Queue | None = None
    until: int = 0


@dataclass
class Graph:
    """Captured work."""

    device: int
    work: list[Callable[[], None]]


@dataclass(frozen=True)
class Copy:
    """A copy that was asked for."""

    kind: str
    nbytes: int


class FakeCuda:
    """`cuda.bindings.runtime` with GPUs of `memory_bytes` each."""

    def __init__(
        self,
        *,
        gpus: int = 1,
        memory_bytes: int = 1 << 40,
        target: tuple[int, int] = (8, 6),
        model: bytes = b"RTX A4000",
        driver_is_old: bool = False,
    ) -> None:
        self.gpus, self.memory_bytes, self.target, self.model = gpus, memory_bytes, target, model
        self.driver_is_old = driver_is_old
        self.current = 0
        """The device of the calling thread: another library of the program may change it between two calls."""
        self.context: int | None = None
        """The driver's context that is current in the calling thread."""
        self.live: dict[int, Any] = {}
        """Everything that was created and not freed yet, by handle or address."""
        self.copies: list[Copy] = []
        self.allocations: list[int] = []
        """Their bytes, on a device and on the host."""
        self.launches = 0
        self.sticky = SUCCESS
        self.default_streams = [Queue(number) for number in range(gpus)]
        self._freed: list[Block] = []
        """Kept, so that no later block gets the address of one that was freed."""
        self._next = 0x1000

    def __getattr__(self, name: str) -> Any:
        """A constant of the bindings, or one of the functions below, checked against its real signature."""
        if (function := _FUNCTIONS.get(name)) is None:
            return getattr(runtime, name)

        def call(*args: Any) -> tuple[Any, ...]:
            check_cuda_call(name, *args)
            if self.sticky != SUCCESS and name not in WITHOUT_STICKY_ERROR:
                return (self.sticky, None)
            try:
                value = function(self, *args)
            except CudaFailureError as failure:
                return (failure.error, None)
            return (SUCCESS,) if value is None else (SUCCESS, value)

        return call

    def handle(self, kind: str, thing: Any) -> Any:
        """A new handle of the bindings' type."""
        self._next += 0x10
        self.live[self._next] = thing
        return getattr(runtime, kind)(self._next)

    def found(self, handle: Any, kind: type) -> Any:
        """What a handle stands for, which must be alive and on the current device."""
        if kind is Queue and int(handle) == LEGACY_DEFAULT_STREAM:
            return self.default_streams[self.current]
        thing = self.live.get(int(handle))
        if not isinstance(thing, kind):
            raise MisuseError(f"{int(handle):#x} is no {kind.__name__}, or was destroyed")
        self.require_current(thing.device, kind.__name__)
        return thing

    def require_current(self, device: int | None, what: str) -> None:
        """Raise unless a device is current."""
        if device not in (HOST, self.current):
            raise MisuseError(f"{what} of device {device} is used while device {self.current} is current")

    def allocate(self, size: int, device: int | None) -> int:
        """The address of new memory, which is not zero."""
        used = sum(
            each.content.nbytes for each in self.live.values() if isinstance(each, Block) and each.device == device
        )
        if device is not HOST and used + size > self.memory_bytes:
            raise CudaFailureError(OUT_OF_MEMORY)
        block = Block(device, np.full(max(size, 1), 0xA5, np.uint8))
        self.live[block.content.ctypes.data] = block
        self.allocations.append(size)
        return int(block.content.ctypes.data)

    def free(self, pointer: int, *, of_host: bool) -> None:
        """Release memory, after all work, as CUDA does."""
        self.run_all()
        block = self.live.pop(int(pointer), None)
        if not isinstance(block, Block) or (block.device is HOST) != of_host:
            raise MisuseError(f"{int(pointer):#x} was freed before, or by the wrong function")
        self._freed.append(block)

    def block(self, pointer: int, size: int) -> Block:
        """The live memory that holds these bytes."""
        for start, thing in self.live.items():
            if isinstance(thing, Block) and start <= pointer and pointer + size <= start + thing.content.nbytes:
                return thing
        raise MisuseError(f"{size} bytes at {pointer:#x} are not, or no longer, inside one buffer")

    def run_all(self) -> None:
        """All work of all streams."""
        for queue in self._queues():
            queue.run()

    def forget_work(self) -> None:
        """After a misuse: no work that is left runs, for example when memory is freed."""
        for queue in self._queues():
            queue.work.clear()
            queue.done = 0

    def _queues(self) -> list[Queue]:
        return [*(each for each in self.live.values() if isinstance(each, Queue)), *self.default_streams]


_FUNCTIONS: dict[str, Callable[..., Any]] = {}


def _cuda(function: Callable[..., Any]) -> Callable[..., Any]:
    _FUNCTIONS[function.__name__] = function
    return function


@_cuda
def cudaGetDeviceCount(gpu):  # noqa: N802
    if gpu.driver_is_old:
        raise CudaFailureError(INSUFFICIENT_DRIVER)
    return gpu.gpus


@_cuda
def cudaGetDeviceProperties(gpu, number):  # noqa: N802
    return SimpleNamespace(name=gpu.model, major=gpu.target[0], minor=gpu.target[1])


@_cuda
def cudaSetDevice(gpu, number):  # noqa: N802
    gpu.current = number
    gpu.context = PRIMARY + number


@_cuda
def cudaGetErrorString(gpu, error):  # noqa: N802
    return error.name.encode()


@_cuda
def cudaGetLastError(gpu):  # noqa: N802
    return None


@_cuda
def cudaMalloc(gpu, size):  # noqa: N802
    return gpu.allocate(size, gpu.current)


@_cuda
def cudaHostAlloc(gpu, size, flags):  # noqa: N802
    return gpu.allocate(size, HOST)


@_cuda
def cudaFree(gpu, pointer):  # noqa: N802
    gpu.free(pointer, of_host=False)


@_cuda
def cudaFreeHost(gpu, pointer):  # noqa: N802
    gpu.free(pointer, of_host=True)


@_cuda
def cudaMemset(gpu, pointer, value, count):  # noqa: N802
    block = gpu.block(pointer, count)
    gpu.require_current(block.device, "memory")
    block.is_written = True
    ctypes.memset(pointer, value, count)


@_cuda
def cudaPointerGetAttributes(gpu, pointer):  # noqa: N802
    kinds = runtime.cudaMemoryType
    for start, thing in gpu.live.items():
        if isinstance(thing, Block) and start <= pointer < start + thing.content.nbytes:
            kind = kinds.cudaMemoryTypeHost if thing.device is HOST else kinds.cudaMemoryTypeDevice
            return SimpleNamespace(type=kind, device=thing.device or 0)
    return SimpleNamespace(type=kinds.cudaMemoryTypeUnregistered, device=-2)


@_cuda
def cudaStreamCreateWithFlags(gpu, flags):  # noqa: N802
    assert flags == runtime.cudaStreamNonBlocking
    return gpu.handle("cudaStream_t", Queue(gpu.current))


@_cuda
def cudaStreamDestroy(gpu, stream):  # noqa: N802
    gpu.live[int(stream)].run()  # CUDA lets its work end
    del gpu.live[int(stream)]


@_cuda
def cudaEventCreateWithFlags(gpu, flags):  # noqa: N802
    return gpu.handle("cudaEvent_t", Recorded(gpu.current))


@_cuda
def cudaEventDestroy(gpu, event):  # noqa: N802
    assert isinstance(gpu.live.pop(int(event)), Recorded)


@_cuda
def cudaEventRecord(gpu, event, stream):  # noqa: N802
    recorded, queue = gpu.found(event, Recorded), gpu.found(stream, Queue)
    recorded.queue, recorded.until = queue, len(queue.work)


@_cuda
def cudaStreamWaitEvent(gpu, stream, event, flags):  # noqa: N802
    recorded = gpu.found(event, Recorded)
    queue, until = recorded.queue, recorded.until
    gpu.found(stream, Queue).add(lambda: queue.run(until))


@_cuda
def cudaEventSynchronize(gpu, event):  # noqa: N802
    recorded = gpu.found(event, Recorded)
    recorded.queue.run(recorded.until)
    if gpu.sticky != SUCCESS:
        raise CudaFailureError(gpu.sticky)


@_cuda
def cudaStreamSynchronize(gpu, stream):  # noqa: N802
    gpu.found(stream, Queue).run()


@_cuda
def cudaDeviceSynchronize(gpu):  # noqa: N802
    gpu.run_all()


@_cuda
def cudaMemcpyAsync(gpu, target, source, count, kind, stream):  # noqa: N802
    word = kind.name.removeprefix("cudaMemcpy")
    gpu.copies.append(Copy(word, count))

    def copy() -> None:
        taken, given = gpu.block(source, count), gpu.block(target, count)
        places = "".join("Host" if each.device is HOST else "Device" for each in (taken, given))
        if places != word.replace("To", ""):
            raise MisuseError(f"a copy {word} leads from and to {places}")
        if word == "DeviceToHost":
            taken.take("outputs are downloaded before a program has written them")
        elif not (taken.device is HOST or taken.is_written):
            raise MisuseError("memory is copied that nothing has written")
        given.is_fresh = given.is_written = True
        ctypes.memmove(target, source, count)

    for pointer in (source, target):
        gpu.require_current(gpu.block(pointer, count).device, "memory")
    gpu.found(stream, Queue).add(copy)


@_cuda
def cudaStreamBeginCapture(gpu, stream, mode):  # noqa: N802
    gpu.found(stream, Queue).capturing = []


@_cuda
def cudaStreamEndCapture(gpu, stream):  # noqa: N802
    queue = gpu.found(stream, Queue)
    work, queue.capturing = queue.capturing, None
    if work is None:
        raise CudaFailureError(CAPTURE_INVALIDATED)
    return gpu.handle("cudaGraph_t", Graph(queue.device, work))


@_cuda
def cudaGraphInstantiate(gpu, graph, flags):  # noqa: N802
    found = gpu.found(graph, Graph)
    return gpu.handle("cudaGraphExec_t", Graph(found.device, found.work))


@_cuda
def cudaGraphDestroy(gpu, graph):  # noqa: N802
    assert isinstance(gpu.live.pop(int(graph)), Graph)


@_cuda
def cudaGraphExecDestroy(gpu, executable):  # noqa: N802
    assert isinstance(gpu.live.pop(int(executable)), Graph)


@_cuda
def cudaGraphLaunch(gpu, executable, stream):  # noqa: N802
    gpu.launches += 1
    for work in gpu.found(executable, Graph).work:
        gpu.found(stream, Queue).add(work)
