"""The `Device` of both TensorRT engines: an engine of TensorRT or TensorRT-RTX on a GPU.

Each program has its own execution context, whose batch size and buffer addresses are set once. Programs take turns on
one stream and keep nothing between runs, so all of them share the same scratch memory.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines.cuda import CudaGpu, Handle, Memory, owned
from melanoma_infer.engines.device import DeviceError, Stream
from melanoma_infer.engines.device_arrays import DeviceTiles, device_tiles
from melanoma_infer.engines.engine_file import EngineFile, EngineManifest
from melanoma_infer.engines.kernel_cache import KernelCache
from melanoma_infer.engines.tensorrt_api import Api, Heard, in_one_line
from melanoma_infer.engines.tensorrt_build import STRIPPED, as_built

INPUT = "tiles"
FAILURES = (RuntimeError, TypeError, ValueError, MemoryError)
"""What the bindings raise when they do not return False or None."""


@dataclass(frozen=True)
class Loaded:
    """An engine that the library has loaded, and the library's objects that must live as long as it."""

    engine: Any
    manifest: EngineManifest
    runtime: Any
    config: Any | None
    """The runtime configuration of TensorRT-RTX; TensorRT has none."""
    kernels: KernelCache | None
    """The kernels that TensorRT-RTX has compiled; TensorRT's are in the engine."""


@dataclass(frozen=True)
class BoundContext:
    """A program: a context with batch size and buffers set, its scratch memory, and its CUDA graph if there is one."""

    context: Any
    scratch: Memory | None
    graph: Handle | None


def load_device(api: Api, place: CudaGpu, file: EngineFile, *, graph: bytes, kernels: Path) -> TensorRTDevice:
    """An engine loaded on a GPU.

    Args:
        api: the library that built the engine.
        place: where to run.
        file: the engine, with its hash checked.
        graph: the bytes of the ONNX file, from which an engine without weights takes them.
        kernels: the cache's file for what TensorRT-RTX compiles for this engine on this GPU.

    Raises:
        DeviceError: the engine cannot be loaded, or its inputs and outputs differ from its manifest.
    """
    with _translated(api, place) as heard:
        runtime = api.trt.Runtime(api.logger)
        engine = runtime.deserialize_cuda_engine(file.content)
        if engine is None:
            raise _failure(place, "The engine cannot be loaded", heard)
        if STRIPPED in file.manifest.origin.flags:
            refitter = api.trt.Refitter(engine, api.logger)
            parsed = api.trt.OnnxParserRefitter(refitter, api.logger).refit_from_bytes(
                as_built(graph, file.manifest.origin)
            )
            if not (parsed and refitter.refit_cuda_engine()):
                raise _failure(place, "The engine does not accept the bundle's weights", heard)
        config = engine.create_runtime_config() if api.is_rtx else None
        compiled: KernelCache | None = None
        if config is not None:
            # Compiled for each batch size before it first runs, so that results do not depend on how many came before.
            config.dynamic_shapes_kernel_specialization_strategy = (
                api.trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            config.cuda_graph_strategy = api.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            config.set_execution_context_allocation_strategy(api.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            compiled = KernelCache(config.create_runtime_cache(), kernels)
            config.set_runtime_cache(compiled.library)
    found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    specs = (*file.manifest.inputs, *file.manifest.outputs)
    if found != (expected := {spec.name for spec in specs}):
        raise DeviceError(
            f"the engine has the tensors {', '.join(sorted(found))}, its manifest {', '.join(sorted(expected))}"
        )
    for spec in specs:
        dtype = api.trt.DataType.UINT8 if spec.name == INPUT else api.trt.DataType.FLOAT
        shape = tuple(engine.get_tensor_shape(spec.name))
        if engine.get_tensor_dtype(spec.name) != dtype or shape[1:] != spec.shape[1:]:
            raise DeviceError(
                f"the engine's {spec.name!r} is {engine.get_tensor_dtype(spec.name)} {shape}, unlike its manifest "
                f"({spec.dtype} {spec.shape})"
            )
    return TensorRTDevice(api, place, Loaded(engine, file.manifest, runtime, config, compiled))


class TensorRTDevice:
    """A loaded engine on a GPU, with three streams of its own.

    Args:
        api: the library that built the engine.
        gpu: where it was loaded.
        loaded: the engine.

    Raises:
        DeviceError: of the kind that `device` describes.
    """

    def __init__(self, api: Api, gpu: CudaGpu, loaded: Loaded) -> None:
        self._api, self._gpu, self._loaded = api, gpu, loaded
        self._stream_handles = {stream: gpu.stream() for stream in Stream}
        self._streams = {stream: handle.value for stream, handle in self._stream_handles.items()}
        self._scratch: Memory | None = None
        self._uncaptured: set[int] = set()
        """Batch sizes whose CUDA graph could not be captured, so that the host launches each of their kernels."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What runs other than it should; known after every batch size has run once."""
        kernels = self._loaded.kernels
        damaged = () if kernels is None or kernels.remark is None else (kernels.remark,)
        return (*damaged, *(f"no CUDA graph for batches of {rows}" for rows in sorted(self._uncaptured)))

    def resident(self, tiles: Any) -> DeviceTiles | None:
        """The tiles if they are already in this GPU's memory; None if they are in host memory.

        Raises:
            UsageError: they are on another GPU, or are not uint8 or not contiguous.
        """
        return device_tiles(tiles, self._gpu, int(self._streams[Stream.UPLOAD]))

    def pinned(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Page-locked memory, all zeros, freed with the array."""
        return self._gpu.pinned(shape, dtype)

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Memory:
        """Device memory, all zeros."""
        return self._gpu.zeros(shape, dtype)

    def program(self, tiles: Memory, outputs: Mapping[str, Memory], rows: int) -> BoundContext:
        """The forward pass for a batch of `rows` tiles, run once as a warm-up, which compiles and loads its kernels."""
        with _translated(self._api, self._gpu) as heard:
            strategy = self._api.trt.ExecutionContextAllocationStrategy.USER_MANAGED
            config = self._loaded.config
            context = self._loaded.engine.create_execution_context(strategy if config is None else config)
            if context is None:
                raise _failure(self._gpu, "No execution context", heard)
            manifest, compute = self._loaded.manifest, int(self._streams[Stream.COMPUTE])
            profile = manifest.buckets.index(rows) if self._loaded.engine.num_optimization_profiles > 1 else 0
            chosen = context.set_optimization_profile_async(profile, compute) if profile else True
            if not (chosen and context.set_input_shape(INPUT, (rows, *manifest.inputs[0].shape[1:]))):
                raise _failure(self._gpu, f"A batch of {rows} is rejected", heard)
            size = context.update_device_memory_size_for_shapes()
            if size and (self._scratch is None or self._scratch.row_bytes < size):
                self._scratch = self._gpu.allocate(size, size)  # earlier contexts keep what they were given
            scratch = self._scratch if size else None
            if scratch is not None:
                context.set_device_memory(scratch.pointer, scratch.row_bytes)
            for name, memory in {INPUT: tiles, **outputs}.items():
                if not context.set_tensor_address(name, memory.pointer):
                    raise _failure(self._gpu, f"The buffer of {name!r} is rejected", heard)
            self._run(context, heard)
            self._gpu.value(self._gpu.runtime().cudaStreamSynchronize(self._streams[Stream.COMPUTE]))
            if self._loaded.kernels is not None:
                self._loaded.kernels.save()
            if self._api.is_rtx:  # it captures its own graphs
                return BoundContext(context, scratch, None)
            if (graph := self._captured(context)) is None:
                self._uncaptured.add(rows)
            return BoundContext(context, scratch, graph)

    def upload(self, source: NDArray[Any] | DeviceTiles, target: Memory, first: int = 0) -> None:
        """Copy without waiting: pinned rows, or rows in GPU memory, the latter after the stream that writes them."""
        cuda, stream = self._gpu.runtime(), self._streams[Stream.UPLOAD]
        if isinstance(source, DeviceTiles):
            if source.stream is not None:
                self.wait(Stream.UPLOAD, self._gpu.record(source.stream))
            address, kind = source.pointer, cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        else:
            address, kind = source.ctypes.data, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        place = target.pointer + first * target.row_bytes
        self._gpu.value(cuda.cudaMemcpyAsync(place, address, source.nbytes, kind, stream))

    def launch(self, program: BoundContext) -> None:
        """Replay the program's graph, or run its context."""
        if program.graph is not None:
            cuda = self._gpu.runtime()
            self._gpu.value(cuda.cudaGraphLaunch(program.graph.value, self._streams[Stream.COMPUTE]))
            return
        with _translated(self._api, self._gpu) as heard:
            self._run(program.context, heard)

    def download(self, source: Memory, target: NDArray[Any]) -> None:
        """Copy without waiting."""
        cuda = self._gpu.runtime()
        kind, stream = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost, self._streams[Stream.DOWNLOAD]
        self._gpu.value(cuda.cudaMemcpyAsync(target.ctypes.data, source.pointer, target.nbytes, kind, stream))

    def record(self, stream: Stream) -> Handle:
        """A CUDA event after all work in the stream."""
        return self._gpu.record(self._streams[stream])

    def wait(self, stream: Stream, event: Handle) -> None:
        """Make the stream wait for the event; the host does not wait."""
        self._gpu.value(self._gpu.runtime().cudaStreamWaitEvent(self._streams[stream], event.value, 0))

    def synchronize(self, event: Handle) -> None:
        """Make the host wait for the event."""
        self._gpu.value(self._gpu.runtime().cudaEventSynchronize(event.value))

    def release(self) -> None:
        """Wait for the GPU, and free memory that nothing refers to any more."""
        self._gpu.synchronize()
        self._scratch = None
        gc.collect()  # an error that was just handled may refer to buffers in a cycle of frames

    def _run(self, context: Any, heard: Heard) -> None:
        if not context.execute_async_v3(int(self._streams[Stream.COMPUTE])):
            raise _failure(self._gpu, "The engine does not run", heard)

    def _captured(self, context: Any) -> Handle | None:
        """The context's work as a CUDA graph; None if it cannot be captured, and the context then runs without one."""
        cuda, stream = self._gpu.runtime(), self._streams[Stream.COMPUTE]
        # ThreadLocal: other threads of the program may keep using CUDA while this one captures.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._gpu.value(cuda.cudaStreamBeginCapture(stream, mode))
        try:
            ran = context.execute_async_v3(int(stream))
        except FAILURES:
            ran = False
        error, graph = cuda.cudaStreamEndCapture(stream)
        captured = owned(graph, cuda.cudaGraphDestroy) if not error and int(graph) else None
        if captured is None or not ran:
            cuda.cudaGetLastError()
            return None
        return owned(self._gpu.value(cuda.cudaGraphInstantiate(captured.value, 0)), cuda.cudaGraphExecDestroy)


@contextmanager
def _translated(api: Api, gpu: CudaGpu) -> Iterator[Heard]:
    """Context on the GPU in which the library's exceptions become DeviceErrors and its messages are collected."""
    gpu.runtime()  # the library works on the thread's current GPU
    with api.listening() as heard:
        try:
            yield heard
        except FAILURES as error:
            raise _failure(gpu, str(error) or type(error).__name__, heard) from error


def _failure(gpu: CudaGpu, what: str, heard: Heard) -> DeviceError:
    reason = f"{what}: {in_one_line(heard.errors)}" if heard.errors else what
    return gpu.failure(reason, reports=heard.errors)
