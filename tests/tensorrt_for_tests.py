"""A fake TensorRT on a fake GPU, made from the installed bindings: every call is bound to its real signature.

An engine computes the colour rule of `bundles_for_tests`. What cannot be faked (kernels, numbers, timing) is tested on
a machine with a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from bindings_for_tests import WrongCallError, like, trt
from bundles_for_tests import expected_probability
from fake_cuda_for_tests import FakeCuda, MisuseError, Queue

KERNELS = b"kernels for batches of "
"""How the fake runtime cache begins when it is serialised."""


@dataclass
class Behaviour:
    """How the library behaves besides computing, and which calls it got."""

    gpu: FakeCuda
    scratch_bytes_of_row: int = 1000
    fails_on_run: str | None = None
    fails_on_load: str | None = None
    fails_in_capture: bool = False
    raises_in_capture: bool = False
    """Whether it raises an exception when it fails in a capture, instead of returning False."""
    wrong_context: tuple[int, int] | None = None
    """Of which batch size, and which of these in the order of their making, a context gives wrong numbers."""
    profiles: int = 1
    compiled: list[int] = field(default_factory=list)
    """The batch sizes for which TensorRT-RTX compiled kernels, because its runtime cache held none."""
    rejects_kernels: bool = False
    """Whether a runtime cache that was kept is another driver's."""
    built_on: list[int] = field(default_factory=list)
    """The device that was current when an engine was built, for each build."""
    opened: list[bytes] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    refitted: list[bytes] = field(default_factory=list)
    timings: list[bytes] = field(default_factory=list)

    def is_wrong(self, context: Any) -> bool:
        """Whether this is the context that gives wrong numbers."""
        of_size = [each for each in self.contexts if each.rows == context.rows]
        return self.wrong_context == (context.rows, of_size.index(context))


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
            behaviour.opened.append(content)
            if behaviour.fails_on_load:
                say(trt.ILogger.ERROR, behaviour.fails_on_load)
                return None
            engine = ICudaEngine()
            engine._device = gpu.current
            return engine

    @like("IRuntimeCache")
    class IRuntimeCache:
        rows = frozenset()

        def deserialize(self, blob):
            assert blob.startswith(KERNELS)
            if not behaviour.rejects_kernels:
                self.rows |= set(blob[len(KERNELS) :])
            return not behaviour.rejects_kernels

        def serialize(self):
            return KERNELS + bytes(sorted(self.rows))

    @like("IRuntimeConfig")
    class IRuntimeConfig:
        cuda_graph_strategy = property(lambda self: None, lambda self, value: _require(value, trt.CudaGraphStrategy))
        dynamic_shapes_kernel_specialization_strategy = property(
            lambda self: None, lambda self, value: _require(value, trt.DynamicShapesKernelSpecializationStrategy)
        )

        def set_execution_context_allocation_strategy(self, strategy):
            assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED

        def create_runtime_cache(self):
            return IRuntimeCache()

        def set_runtime_cache(self, cache):
            self._cache = cache
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
            gpu.require_current(self._device, "an engine")
            context = IExecutionContext()
            context._device, context._cache = self._device, getattr(how, "_cache", None)
            behaviour.contexts.append(context)
            return context

    @like("IExecutionContext")
    class IExecutionContext:
        _has_run = False

        def set_optimization_profile_async(self, profile, stream):
            gpu.found(stream, Queue)
            self.profile = profile
            return profile < behaviour.profiles

        def set_input_shape(self, name, shape):
            assert name == "tiles"
            assert shape[1:] == (tile_px, tile_px, 3)
            self.rows, self.addresses, self.memory = shape[0], {}, (0, 0)
            if self._cache is not None and self.rows not in self._cache.rows:
                behaviour.compiled.append(self.rows)
                self._cache.rows |= {self.rows}
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
            gpu.require_current(self._device, "an execution context")
            if set(self.addresses) != set(names):
                say(trt.ILogger.ERROR, "a buffer is not set")
                return False
            queue = gpu.found(stream, Queue)
            if behaviour.fails_on_run or (queue.capturing is not None and behaviour.fails_in_capture):
                say(trt.ILogger.ERROR, behaviour.fails_on_run or "not capturable")
                if behaviour.raises_in_capture:
                    raise RuntimeError("a plugin failed")
                return False
            queue.add(self._compute)
            return True

        def _compute(self):
            size = self.rows * tile_px * tile_px * 3
            gpu.block(*self.memory)
            given, answers = (gpu.block(self.addresses[name], 1) for name in ("tiles", "probabilities"))
            if self._has_run:
                given.take("a program runs before its tiles are uploaded")
            elif not given.is_written:
                raise MisuseError("a program reads memory that nothing has written")
            answers.is_fresh, answers.is_written, self._has_run = self._has_run, True, True
            tiles = _view(self.addresses["tiles"], size).reshape(self.rows, tile_px, tile_px, 3)
            tumour = expected_probability(tiles)
            tumour = tumour + 0.1 * behaviour.is_wrong(self)
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
    """The real builder; its builds are noted."""

    def make(logger: Any) -> Any:
        behaviour.built_on.append(behaviour.gpu.current)
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
            behaviour.built_on.append(behaviour.gpu.current)
            return b"a plan of TensorRT"

    return Builder
