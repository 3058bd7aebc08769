"""A GPU through cuda-python and an engine of TensorRT or TensorRT-RTX: what both engines give to `batching`.

Every program has an execution context of its own, with its batch size and its buffers' addresses set once. Programs
take turns on one stream and leave nothing behind, so all of them work in the same scratch memory.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.device import DeviceError, DeviceLostError, DeviceMemoryError, Stream
from melanoma_infer.engines.device_arrays import DeviceTiles, device_tiles
from melanoma_infer.engines.engine_file import EngineFile
from melanoma_infer.engines.tensorrt_api import Api, Heard, in_one_line
from melanoma_infer.engines.tensorrt_build import OUT_OF_MEMORY, STRIPPED
from melanoma_infer.errors import EngineUnavailableError, UsageError

INPUT = "tiles"
FAILURES = (RuntimeError, TypeError, ValueError, MemoryError)
"""What the bindings raise where they do not return False or None."""


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine."""

    number: int
    name: str
    target: str
    """Its compute capability: sm86, …"""


def import_cuda() -> Any:
    """The CUDA runtime's bindings.

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
    """The GPU of that name: None or "cuda" for the first, "cuda:1" and so on.

    Raises:
        EngineUnavailableError: there is none.
    """
    error, count = cuda.cudaGetDeviceCount()
    if error or not count:
        reason = _text(cuda, error) if error else "no CUDA device"
        raise EngineUnavailableError(
            f"CUDA finds no GPU here ({reason}). Does nvidia-smi show it, and is the driver new enough? If not, use "
            "--engine openvino."
        )
    kind, _, number = (device or "cuda").partition(":")
    if kind != "cuda" or not (number or "0").isdecimal() or int(number or 0) >= count:
        raise EngineUnavailableError(
            f"There is no CUDA device {device!r}. Leave --device out, or use --engine openvino."
        )
    error, found = cuda.cudaGetDeviceProperties(int(number or 0))
    if error:
        raise EngineUnavailableError(
            f"The GPU cannot be asked what it is ({_text(cuda, error)}). Use --engine openvino."
        )
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return Gpu(int(number or 0), name.rstrip("\0"), f"sm{found.major}{found.minor}")


@dataclass(frozen=True, eq=False)
class Memory:
    """Device memory, freed with its last owner; rows lie one after the other."""

    pointer: int
    row_bytes: int


@dataclass(frozen=True, eq=False)
class Handle:
    """A stream, an event or a graph, destroyed with its last owner; the bindings' objects allow no weak reference."""

    value: Any


@dataclass(frozen=True)
class Bound:
    """A context whose batch size and buffers are set, its scratch memory, and its CUDA graph where there is one."""

    context: Any
    scratch: Memory | None
    graph: Handle | None


class PinnedArray:
    """Page-locked host memory, as NumPy's array interface; freed with the last array that looks at it."""

    def __init__(self, pointer: int, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": np.dtype(dtype).str, "data": (pointer, False),
        }  # fmt: skip


class TensorRTDevice:
    """An engine on a GPU, with three streams of its own.

    Args:
        api: the library that built the engine.
        cuda: `cuda.bindings.runtime`.
        gpu: where to run.
        engine: the engine, hashed.
        graph: the ONNX file's bytes, whose weights an engine without weights gets.

    Raises:
        DeviceError: of the kind that `device` describes.
    """

    def __init__(self, api: Api, cuda: Any, gpu: Gpu, engine: EngineFile, graph: bytes) -> None:
        self._api, self._cuda, self._gpu, self._manifest = api, cuda, gpu, engine.manifest
        self._handles = {stream: self._new_stream() for stream in Stream}
        self._streams = {stream: handle.value for stream, handle in self._handles.items()}
        self._scratch: Memory | None = None
        with self._translated() as heard:
            self._runtime = api.trt.Runtime(api.logger)
            self._engine = self._runtime.deserialize_cuda_engine(engine.content)
            if self._engine is None:
                raise self._failure("The engine cannot be loaded", heard)
            if STRIPPED in engine.manifest.origin.flags:
                self._refit(graph, heard)
            self._runtime_config = self._new_runtime_config() if api.is_rtx else None

    def check_interface(self) -> None:
        """Nothing, when the engine's inputs and outputs are those of its manifest, uint8 in and float32 out.

        Raises:
            DeviceError: they are not.
        """
        trt, engine, manifest = self._api.trt, self._engine, self._manifest
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        specs = (*manifest.inputs, *manifest.outputs)
        if found != {spec.name for spec in specs}:
            raise DeviceError(f"the engine has {', '.join(sorted(found))}, unlike its manifest")
        for spec in specs:
            wanted = trt.DataType.UINT8 if spec.name == INPUT else trt.DataType.FLOAT
            shape = tuple(engine.get_tensor_shape(spec.name))
            if engine.get_tensor_dtype(spec.name) != wanted or shape[1:] != spec.shape[1:]:
                raise DeviceError(f"the engine's {spec.name!r} is not what its manifest says")

    def resident(self, tiles: Any) -> DeviceTiles | None:
        """The tiles where they lie on this GPU already; None for an array in the computer's memory.

        Raises:
            UsageError: they lie on another GPU, or are not uint8 or not contiguous.
        """
        found = device_tiles(tiles, int(self._streams[Stream.UPLOAD]))
        if found is not None and found.device not in (None, self._gpu.number):
            raise UsageError(
                f"The tiles lie on cuda:{found.device}, the engine on cuda:{self._gpu.number}. Use one GPU."
            )
        return found

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Page-locked memory, which lives as long as the array."""
        cuda, size = self._here(), _nbytes(shape, dtype)
        pointer = self._value(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault))
        memory = PinnedArray(int(pointer), shape, dtype)
        _freed_with(memory, cuda.cudaFreeHost, pointer)
        array = np.asarray(memory)
        array[...] = 0
        return array

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Memory:
        """Device memory, all zeros."""
        memory = self._allocated(_nbytes(shape, dtype), _nbytes(shape[1:], dtype))
        cuda = self._here()
        self._value(cuda.cudaMemset(memory.pointer, 0, _nbytes(shape, dtype)))
        self._value(cuda.cudaDeviceSynchronize())
        return memory

    def program(self, tiles: Memory, outputs: Mapping[str, Memory], rows: int) -> Bound:
        """The forward pass of so many rows; it was run once before, which compiled and loaded its kernels."""
        stream = self._streams[Stream.COMPUTE]
        with self._translated() as heard:
            context = self._new_context()
            if context is None:
                raise self._failure("No execution context", heard)
            self._set_shapes(context, rows, heard)
            scratch = self._scratch_for(context)
            addresses = {INPUT: tiles, **outputs}
            for name, memory in addresses.items():
                if not context.set_tensor_address(name, memory.pointer):
                    raise self._failure(f"The buffer of {name!r} is refused", heard)
            self._run(context, heard)
            self._value(self._here().cudaStreamSynchronize(stream))
            return Bound(context, scratch, None if self._api.is_rtx else self._captured(context))

    def upload(self, source: NDArray[Any] | DeviceTiles, target: Memory) -> None:
        """Copy without waiting: pinned rows, or rows that lie on a GPU, after the stream that writes them."""
        cuda, stream = self._here(), self._streams[Stream.UPLOAD]
        if isinstance(source, DeviceTiles):
            self._wait_for_producer(source.stream)
            address, kind = source.pointer, cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        else:
            address, kind = source.ctypes.data, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._value(cuda.cudaMemcpyAsync(target.pointer, address, source.nbytes, kind, stream))

    def launch(self, program: Bound) -> None:
        """Replay the graph, or run the context."""
        if program.graph is not None:
            self._value(self._here().cudaGraphLaunch(program.graph.value, self._streams[Stream.COMPUTE]))
            return
        with self._translated() as heard:
            self._run(program.context, heard)

    def download(self, source: Memory, target: NDArray[Any]) -> None:
        """Copy without waiting."""
        cuda = self._here()
        kind, stream = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost, self._streams[Stream.DOWNLOAD]
        self._value(cuda.cudaMemcpyAsync(target.ctypes.data, source.pointer, target.nbytes, kind, stream))

    def record(self, stream: Stream) -> Handle:
        """A CUDA event; a host that waits for it sleeps, because decoding needs the cores."""
        return self._recorded(self._streams[stream])

    def wait(self, stream: Stream, event: Handle) -> None:
        """Let the stream wait; the host does not."""
        self._value(self._here().cudaStreamWaitEvent(self._streams[stream], event.value, 0))

    def synchronize(self, event: Handle) -> None:
        """Let the host wait."""
        self._value(self._here().cudaEventSynchronize(event.value))

    def release(self) -> None:
        """Wait for the GPU, and give up memory that nothing owns any more."""
        self._value(self._here().cudaDeviceSynchronize())
        self._scratch = None
        gc.collect()  # an error that was just handled may hold buffers in a cycle of frames

    def _here(self) -> Any:
        """The CUDA runtime, set to this GPU in the thread that calls."""
        self._value(self._cuda.cudaSetDevice(self._gpu.number))
        return self._cuda

    def _value(self, answer: tuple[Any, ...]) -> Any:
        """What a CUDA call returned, or the error that it reports."""
        error, *values = answer
        if error:
            raise self._cuda_failure(error)
        return values[0] if values else None

    def _cuda_failure(self, error: Any) -> DeviceError:
        text = _text(self._cuda, error)
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            self._cuda.cudaGetLastError()  # it is not sticky, but the next call would report it again
            return DeviceMemoryError(text)
        return DeviceLostError(text) if self._is_lost() else DeviceError(text)

    def _is_lost(self) -> bool:
        """Whether even waiting fails: an error that poisons the CUDA context comes back from every call."""
        self._cuda.cudaGetLastError()
        return bool(self._cuda.cudaDeviceSynchronize()[0])

    @contextmanager
    def _translated(self) -> Iterator[Heard]:
        """Within it, what the library raises becomes a DeviceError; what it says is collected."""
        with self._api.listening() as heard:
            try:
                yield heard
            except FAILURES as error:
                raise self._failure(str(error) or type(error).__name__, heard) from error

    def _failure(self, what: str, heard: Heard) -> DeviceError:
        reason = f"{what}: {in_one_line(heard.errors)}" if heard.errors else what
        if any(word in " ".join([what, *heard.errors]).lower() for word in OUT_OF_MEMORY):
            self._cuda.cudaGetLastError()
            return DeviceMemoryError(reason)
        return DeviceLostError(reason) if self._is_lost() else DeviceError(reason)

    def _allocated(self, size: int, row_bytes: int) -> Memory:
        cuda = self._here()
        pointer = self._value(cuda.cudaMalloc(max(size, 1)))
        memory = Memory(int(pointer), row_bytes)
        _freed_with(memory, cuda.cudaFree, pointer)
        return memory

    def _new_stream(self) -> Handle:
        cuda = self._here()
        return _owned(self._value(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)), cuda.cudaStreamDestroy)

    def _recorded(self, stream: Any) -> Handle:
        cuda = self._here()
        flags = cuda.cudaEventBlockingSync | cuda.cudaEventDisableTiming
        event = _owned(self._value(cuda.cudaEventCreateWithFlags(flags)), cuda.cudaEventDestroy)
        self._value(cuda.cudaEventRecord(event.value, stream))
        return event

    def _wait_for_producer(self, stream: int | None) -> None:
        if stream is not None:
            self.wait(Stream.UPLOAD, self._recorded(stream))

    def _new_runtime_config(self) -> Any:
        """Kernels are compiled for each batch size before its first run, so that no result depends on when it came."""
        trt, config = self._api.trt, self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.set_runtime_cache(config.create_runtime_cache())
        return config

    def _new_context(self) -> Any:
        if self._runtime_config is not None:
            return self._engine.create_execution_context(self._runtime_config)
        return self._engine.create_execution_context(self._api.trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def _set_shapes(self, context: Any, rows: int, heard: Heard) -> None:
        profile = self._manifest.buckets.index(rows) if self._engine.num_optimization_profiles > 1 else 0
        handle = int(self._streams[Stream.COMPUTE])
        shape = (rows, *self._manifest.inputs[0].shape[1:])
        chosen = context.set_optimization_profile_async(profile, handle) if profile else True
        if not (chosen and context.set_input_shape(INPUT, shape)):
            raise self._failure(f"A batch of {rows} is refused", heard)

    def _scratch_for(self, context: Any) -> Memory | None:
        """The scratch memory, grown to what this context needs; contexts made before keep what they were given."""
        size = context.update_device_memory_size_for_shapes()
        if not size:
            return None
        if self._scratch is None or self._scratch.row_bytes < size:
            self._scratch = self._allocated(size, size)
        context.set_device_memory(self._scratch.pointer, self._scratch.row_bytes)
        return self._scratch

    def _run(self, context: Any, heard: Heard) -> None:
        self._here()
        if not context.execute_async_v3(int(self._streams[Stream.COMPUTE])):
            raise self._failure("The engine does not run", heard)

    def _captured(self, context: Any) -> Handle | None:
        """The context's work as a CUDA graph; None where it cannot be captured, and then it runs without one."""
        cuda, stream = self._here(), self._streams[Stream.COMPUTE]
        # ThreadLocal: other threads of the program may go on using CUDA while this one captures.
        self._value(cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        ran = context.execute_async_v3(int(stream))
        error, graph = cuda.cudaStreamEndCapture(stream)
        if error or not ran:
            cuda.cudaGetLastError()
            return None
        executable = _owned(self._value(cuda.cudaGraphInstantiate(graph, 0)), cuda.cudaGraphExecDestroy)
        self._value(cuda.cudaGraphDestroy(graph))
        return executable

    def _refit(self, graph: bytes, heard: Heard) -> None:
        """Give the engine the weights that were left out of its file."""
        trt = self._api.trt
        refitter = trt.Refitter(self._engine, self._api.logger)
        parsed = trt.OnnxParserRefitter(refitter, self._api.logger).refit_from_bytes(graph)
        if not (parsed and refitter.refit_cuda_engine()):
            raise self._failure("The engine does not take the bundle's weights", heard)


def _nbytes(shape: tuple[int, ...], dtype: type[np.generic]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _owned(value: Any, destroy: Any) -> Handle:
    handle = Handle(value)
    _freed_with(handle, destroy, value)
    return handle


def _freed_with(owner: object, free: Any, handle: Any) -> None:
    """Call `free(handle)` when the owner is gone; not at exit, when the driver may be gone first."""
    weakref.finalize(owner, free, handle).atexit = False


def _text(cuda: Any, error: Any) -> str:
    _, text = cuda.cudaGetErrorString(error)
    return str(text.decode() if isinstance(text, bytes) else text)
