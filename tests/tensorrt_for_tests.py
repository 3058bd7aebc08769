"""A fake GPU with TensorRT, made from the installed bindings: every call is bound to its real signature.

Memory is NumPy's, streams are queues that run as late as allowed, and an engine computes the colour rule of
`bundles_for_tests`. What cannot be faked (kernels, numbers, timing) is tested on a machine with a GPU.
"""

from __future__ import annotations

import ctypes
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import expected_probability

REASON = "tensorrt-rtx and cuda-bindings are not installed: pip install 'mminfer[tensorrt-rtx]'"
trt = pytest.importorskip("tensorrt_rtx", reason=REASON)
runtime = pytest.importorskip("cuda.bindings.runtime", reason=REASON)


# Signatures of the bindings, read from their docstrings.


class WrongCallError(AssertionError):
    """A call that the bindings would refuse."""


def check_cuda_call(name: str, *args: Any) -> None:
    """Raise unless `cuda.bindings.runtime` has a function of this name that takes these arguments."""
    if not hasattr(runtime, name):
        raise WrongCallError(f"cuda.bindings.runtime has no {name}")
    try:
        bound = inspect.signature(getattr(runtime, name)).bind(*args)
    except TypeError as error:
        raise WrongCallError(f"{name}: {error}") from error
    for parameter, value in bound.arguments.items():
        kind = inspect.signature(getattr(runtime, name)).parameters[parameter].annotation
        if kind is not inspect.Parameter.empty and not isinstance(value, getattr(runtime, str(kind).strip("'"))):
            raise WrongCallError(f"{name}: {parameter} is {type(value).__name__}, not {kind}")


def check_trt_call(owner: str, name: str, *args: Any) -> None:
    """Raise unless a class of the bindings has a method of this name with an overload that takes these arguments."""
    method = getattr(getattr(trt, owner, None), name, None)
    if method is None:
        raise WrongCallError(f"{owner} has no {name}")
    overloads = signatures(method.__doc__, name)
    if not any(_fits(parameters, args) for parameters in overloads):
        raise WrongCallError(f"{owner}.{name}{tuple(type(arg).__name__ for arg in args)} fits none of {overloads}")


def check_trt_attribute(owner: str, name: str) -> None:
    """Raise unless a class of the bindings has this property."""
    if not isinstance(getattr(getattr(trt, owner), name, None), property):
        raise WrongCallError(f"{owner} has no attribute {name}")


def signatures(doc: str, name: str) -> list[list[tuple[str, str, bool]]]:
    """(name, type, has a default) of every parameter but `self`, for each overload that pybind11 documents."""
    found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", doc, re.MULTILINE)
    return [_parameters(text) for text in found if text != "*args, **kwargs"]


def _parameters(text: str) -> list[tuple[str, str, bool]]:
    parts = re.split(r", (?=\w+: )", text)
    split = [re.fullmatch(r"(\w+): (.*?)(?: = (.*))?", part) for part in parts]
    return [(match[1], match[2], match[3] is not None) for match in split if match is not None and match[1] != "self"]


def _fits(parameters: list[tuple[str, str, bool]], args: tuple[Any, ...]) -> bool:
    required = sum(not has_default for _, _, has_default in parameters)
    if not required <= len(args) <= len(parameters):
        return False
    return all(_is_a(value, kind) for value, (_, kind, _) in zip(args, parameters, strict=False))


def _is_a(value: Any, kind: str) -> bool:
    match kind:
        case "typing.SupportsInt":
            return hasattr(value, "__int__") and not isinstance(value, str)
        case "typing_extensions.Buffer":
            return isinstance(value, bytes | bytearray | memoryview)
        case "str" | "bool" | "tuple" | "list":
            return type(value).__name__ == kind
    if kind.endswith(".Dims"):
        return isinstance(value, tuple | list)  # the bindings convert them
    return re.split(r"\.|::", kind)[-1] in {base.__name__ for base in type(value).__mro__}


def like(owner: str) -> Callable[[type], type]:
    """Check a fake class against the bindings' class of that name: it may have no member that theirs lacks."""

    def decorate(kind: type) -> type:
        for name, member in list(vars(kind).items()):
            if inspect.isfunction(member) and (not name.startswith("_") or name == "__init__"):
                setattr(kind, name, _checked(owner, name, member))
            elif isinstance(member, property):
                check_trt_attribute(owner, name)
        kind.__name__ = owner
        return kind

    return decorate


def _checked(owner: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        if not getattr(self, "_unchecked", False):
            check_trt_call(owner, name, *args)
        return method(self, *args)

    return call


# The CUDA runtime.

SUCCESS = runtime.cudaError_t.cudaSuccess
OUT_OF_MEMORY = runtime.cudaError_t.cudaErrorMemoryAllocation
ILLEGAL_ADDRESS = runtime.cudaError_t.cudaErrorIllegalAddress
INVALID_VALUE = runtime.cudaError_t.cudaErrorInvalidValue


@dataclass
class Queue:
    """A stream: work in order, done when something waits for it."""

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


class FakeCuda:
    """`cuda.bindings.runtime` on a GPU with `memory_bytes` of memory."""

    def __init__(
        self,
        *,
        gpus: int = 1,
        memory_bytes: int = 1 << 40,
        target: tuple[int, int] = (8, 6),
        model: bytes = b"RTX A4000",
    ) -> None:
        self.gpus, self.memory_bytes, self.target, self.model = gpus, memory_bytes, target, model
        self.live: dict[int, Any] = {}
        """Everything that was created and not freed yet, by handle or address."""
        self.queues: dict[int, Queue] = {}
        self.events: dict[int, tuple[Queue, int]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.copies: list[str] = []
        self.launches = 0
        self.sticky = SUCCESS
        self.current: list[int] = []
        self._next = 0x1000

    def __getattr__(self, name: str) -> Any:
        """A constant of the bindings, or one of the functions below, checked against its real signature."""
        if (function := _FUNCTIONS.get(name)) is None:
            return getattr(runtime, name)

        def call(*args: Any) -> tuple[Any, ...]:
            check_cuda_call(name, *args)
            return self._answer(name, function, args)

        return call

    def _answer(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
        free_of_error = ("cudaGetErrorString", "cudaGetLastError", "cudaSetDevice", "cudaFree", "cudaFreeHost")
        if self.sticky != SUCCESS and name not in free_of_error:
            return (self.sticky, None)
        try:
            value = function(self, *args)
        except CudaFailureError as failure:
            return (failure.error, None)
        return (SUCCESS,) if value is None else (SUCCESS, value)

    def handle(self, kind: str, thing: Any) -> Any:
        self._next += 0x10
        self.live[self._next] = thing
        return getattr(runtime, kind)(self._next)

    def allocate(self, size: int) -> int:
        used = sum(thing.nbytes for thing in self.live.values() if isinstance(thing, np.ndarray))
        if used + size > self.memory_bytes:
            raise CudaFailureError(OUT_OF_MEMORY)
        block = np.full(size, 0xA5, np.uint8)  # fresh memory is not zero
        self.live[block.ctypes.data] = block
        return block.ctypes.data

    def run_all(self) -> None:
        for queue in self.queues.values():
            queue.run()


class CudaFailureError(Exception):
    """A call that reports an error."""

    def __init__(self, error: Any) -> None:
        self.error = error


_FUNCTIONS: dict[str, Callable[..., Any]] = {}


def _cuda(function: Callable[..., Any]) -> Callable[..., Any]:
    _FUNCTIONS[function.__name__] = function
    return function


@_cuda
def cudaGetDeviceCount(gpu):  # noqa: N802
    return gpu.gpus


@_cuda
def cudaGetDeviceProperties(gpu, number):  # noqa: N802
    return SimpleNamespace(name=gpu.model, major=gpu.target[0], minor=gpu.target[1])


@_cuda
def cudaSetDevice(gpu, number):  # noqa: N802
    gpu.current.append(number)


@_cuda
def cudaGetErrorString(gpu, error):  # noqa: N802
    return error.name.encode()


@_cuda
def cudaGetLastError(gpu):  # noqa: N802
    return None


@_cuda
def cudaMalloc(gpu, size):  # noqa: N802
    return gpu.allocate(size)


@_cuda
def cudaHostAlloc(gpu, size, flags):  # noqa: N802
    block = np.full(max(size, 1), 0xA5, np.uint8)
    gpu.live[block.ctypes.data] = (block,)
    return block.ctypes.data


@_cuda
def cudaFree(gpu, pointer):  # noqa: N802
    assert isinstance(gpu.live.pop(int(pointer)), np.ndarray)


@_cuda
def cudaFreeHost(gpu, pointer):  # noqa: N802
    assert isinstance(gpu.live.pop(int(pointer)), tuple)


@_cuda
def cudaMemset(gpu, pointer, value, count):  # noqa: N802
    ctypes.memset(pointer, value, count)


@_cuda
def cudaStreamCreateWithFlags(gpu, flags):  # noqa: N802
    assert flags == runtime.cudaStreamNonBlocking
    stream = gpu.handle("cudaStream_t", Queue())
    gpu.queues[int(stream)] = gpu.live[int(stream)]
    return stream


@_cuda
def cudaStreamDestroy(gpu, stream):  # noqa: N802
    assert isinstance(gpu.live.pop(int(stream)), Queue)


@_cuda
def cudaEventCreateWithFlags(gpu, flags):  # noqa: N802
    return gpu.handle("cudaEvent_t", "event")


@_cuda
def cudaEventDestroy(gpu, event):  # noqa: N802
    assert gpu.live.pop(int(event)) == "event"


@_cuda
def cudaEventRecord(gpu, event, stream):  # noqa: N802
    queue = gpu.queues[int(stream)]
    gpu.events[int(event)] = (queue, len(queue.work))


@_cuda
def cudaStreamWaitEvent(gpu, stream, event, flags):  # noqa: N802
    queue, until = gpu.events[int(event)]
    gpu.queues[int(stream)].add(lambda: queue.run(until))


@_cuda
def cudaEventSynchronize(gpu, event):  # noqa: N802
    queue, until = gpu.events[int(event)]
    queue.run(until)
    if gpu.sticky != SUCCESS:
        raise CudaFailureError(gpu.sticky)


@_cuda
def cudaStreamSynchronize(gpu, stream):  # noqa: N802
    gpu.queues[int(stream)].run()


@_cuda
def cudaDeviceSynchronize(gpu):  # noqa: N802
    gpu.run_all()


@_cuda
def cudaMemcpyAsync(gpu, target, source, count, kind, stream):  # noqa: N802
    gpu.copies.append(kind.name.removeprefix("cudaMemcpy"))
    gpu.queues[int(stream)].add(lambda: ctypes.memmove(target, source, count) and None)


@_cuda
def cudaStreamBeginCapture(gpu, stream, mode):  # noqa: N802
    gpu.queues[int(stream)].capturing = []


@_cuda
def cudaStreamEndCapture(gpu, stream):  # noqa: N802
    queue = gpu.queues[int(stream)]
    work, queue.capturing = queue.capturing, None
    graph = gpu.handle("cudaGraph_t", "graph")
    gpu.graphs[int(graph)] = work
    return graph


@_cuda
def cudaGraphInstantiate(gpu, graph, flags):  # noqa: N802
    executable = gpu.handle("cudaGraphExec_t", "executable")
    gpu.graphs[int(executable)] = gpu.graphs[int(graph)]
    return executable


@_cuda
def cudaGraphDestroy(gpu, graph):  # noqa: N802
    assert gpu.live.pop(int(graph)) == "graph"


@_cuda
def cudaGraphExecDestroy(gpu, executable):  # noqa: N802
    assert gpu.live.pop(int(executable)) == "executable"


@_cuda
def cudaGraphLaunch(gpu, executable, stream):  # noqa: N802
    gpu.launches += 1
    for work in gpu.graphs[int(executable)]:
        gpu.queues[int(stream)].add(work)


# The library.


@dataclass
class Behaviour:
    """How the library behaves besides computing, and which calls it got."""

    gpu: FakeCuda
    scratch_bytes_of_row: int = 1000
    fails_on_run: str | None = None
    fails_on_load: str | None = None
    fails_in_capture: bool = False
    profiles: int = 1
    built: int = 0
    opened: list[bytes] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    refitted: list[bytes] = field(default_factory=list)
    timings: list[bytes] = field(default_factory=list)


def fake_library(behaviour: Behaviour, *, rtx: bool, outputs: Mapping[str, tuple[int, ...]], tile_px: int) -> Any:
    """The module `tensorrt_rtx`, or `tensorrt` with the same names, on a fake GPU.

    Enumerations, the logger, networks and the parser are the real ones of TensorRT-RTX; full TensorRT's builder is
    fake, because the real one needs a GPU.
    """
    gpu = behaviour.gpu
    names = ["tiles", *outputs]

    def say(severity: Any, text: str) -> None:
        module.logger.log(severity, text)

    @like("Runtime")
    class Runtime:
        def __init__(self, logger):
            module.logger = logger

        def deserialize_cuda_engine(self, content):
            assert gpu.current, "an engine is loaded on the current GPU, which was not set"
            behaviour.opened.append(content)
            if behaviour.fails_on_load:
                say(trt.ILogger.ERROR, behaviour.fails_on_load)
                return None
            return ICudaEngine()

    @like("IRuntimeConfig")
    class IRuntimeConfig:
        cuda_graph_strategy = property(lambda self: None, lambda self, value: _require(value, trt.CudaGraphStrategy))
        dynamic_shapes_kernel_specialization_strategy = property(
            lambda self: None, lambda self, value: _require(value, trt.DynamicShapesKernelSpecializationStrategy)
        )

        def set_execution_context_allocation_strategy(self, strategy):
            assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED

        def create_runtime_cache(self):
            return type("IRuntimeCache", (), {})()

        def set_runtime_cache(self, cache):
            return True

    @like("ICudaEngine")
    class ICudaEngine:
        num_io_tensors = property(lambda self: len(names))
        num_optimization_profiles = property(lambda self: behaviour.profiles)

        def get_tensor_name(self, index):
            return names[index]

        def get_tensor_shape(self, name):
            return (-1, tile_px, tile_px, 3) if name == "tiles" else (-1, *outputs[name])

        def get_tensor_dtype(self, name):
            return trt.DataType.UINT8 if name == "tiles" else trt.DataType.FLOAT

        def create_runtime_config(self):
            return IRuntimeConfig()

        def create_execution_context(self, how):
            context = IExecutionContext()
            behaviour.contexts.append(context)
            return context

    @like("IExecutionContext")
    class IExecutionContext:
        _unchecked = False

        def set_optimization_profile_async(self, profile, stream):
            self.profile = profile
            return profile < behaviour.profiles

        def set_input_shape(self, name, shape):
            assert name == "tiles"
            assert shape[1:] == (tile_px, tile_px, 3)
            self.rows, self.addresses, self.memory = shape[0], {}, (0, 0)
            return True

        def update_device_memory_size_for_shapes(self):
            return behaviour.scratch_bytes_of_row * self.rows

        def set_device_memory(self, memory, size):
            assert size >= behaviour.scratch_bytes_of_row * self.rows
            self.memory = (memory, size)

        def set_tensor_address(self, name, memory):
            self.addresses[name] = memory
            return name in names

        def execute_async_v3(self, stream):
            if set(self.addresses) != set(names) or self.memory[0] not in gpu.live:
                say(trt.ILogger.ERROR, "a buffer is not set")
                return False
            capturing = gpu.queues[int(stream)].capturing is not None
            if behaviour.fails_on_run or (capturing and behaviour.fails_in_capture):
                say(trt.ILogger.ERROR, behaviour.fails_on_run or "not capturable")
                return False
            gpu.queues[int(stream)].add(self._compute)
            return True

        def _compute(self):
            size = self.rows * tile_px * tile_px * 3
            tiles = _view(self.addresses["tiles"], size).reshape(self.rows, tile_px, tile_px, 3)
            tumour = expected_probability(tiles)
            values = np.stack([1 - tumour, tumour], axis=1).astype(np.float32)
            ctypes.memmove(self.addresses["probabilities"], values.ctypes.data, values.nbytes)

    @like("Refitter")
    class Refitter:
        def __init__(self, engine, logger):
            pass

        def refit_cuda_engine(self):
            return True

    @like("OnnxParserRefitter")
    class OnnxParserRefitter:
        def __init__(self, refitter, logger):
            pass

        def refit_from_bytes(self, model):
            behaviour.refitted.append(model)
            return True

    builder = _counting_builder(behaviour) if rtx else _fake_builder(behaviour)
    module = SimpleNamespace(
        **{name: getattr(trt, name) for name in dir(trt) if not name.startswith("_")}
        | {"__version__": "1.7.1.116" if rtx else "10.13.3", "Runtime": Runtime, "Refitter": Refitter}
        | {"OnnxParserRefitter": OnnxParserRefitter, "Builder": builder, "logger": None}
    )
    if not rtx:
        del module.CudaGraphStrategy
    return module


def _require(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise WrongCallError(f"{value!r} is not a {kind.__name__}")


def _view(pointer: int, size: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))


def _counting_builder(behaviour: Behaviour) -> Callable[[Any], Any]:
    """The real builder; its builds are counted."""

    def make(logger: Any) -> Any:
        behaviour.built += 1
        return trt.Builder(logger)

    return make


def _fake_builder(behaviour: Behaviour) -> type:
    """A fake of full TensorRT's builder, which needs a GPU: real networks, and a plan of a few bytes."""

    @like("ITimingCache")
    class ITimingCache:
        def serialize(self):
            return b"timings"

    @like("IOptimizationProfile")
    class IOptimizationProfile:
        def set_shape(self, name, least, best, most):
            self.shape = (least, best, most)

    @like("IBuilderConfig")
    class IBuilderConfig:
        def clear_flag(self, flag):
            pass

        def set_flag(self, flag):
            pass

        def create_timing_cache(self, content):
            behaviour.timings.append(content)
            return ITimingCache()

        def set_timing_cache(self, cache, ignore_mismatch):
            return True

        def add_optimization_profile(self, profile):
            behaviour.profiles = getattr(self, "profiles", 0) + 1
            self.profiles = behaviour.profiles
            return self.profiles - 1

    @like("Builder")
    class Builder:
        def __init__(self, logger):
            self.real = trt.Builder(logger)

        def create_network(self, flags):
            return self.real.create_network(flags)

        def create_builder_config(self):
            return IBuilderConfig()

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            behaviour.built += 1
            return b"a plan of TensorRT"

    return Builder
