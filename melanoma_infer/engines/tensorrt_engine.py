"""TensorRT: a bundle's graph on any NVIDIA GPU, with an engine that is built once on that GPU and then cached.

Not tested on a GPU yet. Nothing of NVIDIA's is imported before `load` has found a driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Numerics, Outputs, Tell
from melanoma_infer.engines.batching import BatchRunner
from melanoma_infer.engines.cuda import CudaGpu, find_gpu, import_cuda
from melanoma_infer.engines.cuda_driver import callers_context, in_callers_context
from melanoma_infer.engines.device import nvidia_driver_is_loaded
from melanoma_infer.engines.engine_file import (
    EngineFile,
    EngineManifest,
    Origin,
    checked_engine,
    manifest_path,
    read_engine,
    require_origin,
)
from melanoma_infer.engines.frames import Frames
from melanoma_infer.engines.ring import Given
from melanoma_infer.engines.slots import engine_errors
from melanoma_infer.engines.tensorrt_api import Api, ApiName, import_api
from melanoma_infer.engines.tensorrt_build import build, graph_of, origin_of
from melanoma_infer.engines.tensorrt_device import TensorRTDevice, load_device
from melanoma_infer.errors import BundleError, EngineUnavailableError, OutputError
from melanoma_infer.runtime.cache import cache_folder, read_cached, write_cached
from melanoma_infer.tolerances import Precision

CACHE = "engines"
"""Folder of the cache that holds built engines, and the kernels that TensorRT-RTX compiled for them."""


class TensorRTEngine:
    """A graph on a GPU. The last bits of a tile's outputs may depend on the batch size."""

    def __init__(self, device: TensorRTDevice, manifest: EngineManifest, numerics: Numerics) -> None:
        self._device = device
        self._runner = BatchRunner(
            device,
            tile_px=manifest.inputs[0].shape[1],
            outputs={spec.name: spec.shape[1:] for spec in manifest.outputs},
            buckets=manifest.buckets,
        )
        self.numerics = numerics
        self.frames = Frames(device.pinned)

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes in use: those that have fitted the GPU's memory so far."""
        return self._runner.buckets

    @property
    def remarks(self) -> tuple[str, ...]:
        """What makes it slower, with the same numbers: batch sizes without a CUDA graph, kernels compiled again."""
        return self._device.remarks

    @callers_context()
    def infer(self, tiles: NDArray[np.uint8] | Any) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), batch after batch.

        Args:
            tiles: uint8; a NumPy array, or an array in this GPU's memory with `__cuda_array_interface__` or DLPack,
                which is read without a detour through host memory, after what still writes it. The thread keeps its
                CUDA context.

        Raises:
            UsageError: the tiles have another shape, dtype or layout.
            MemoryExhaustedError: not even a batch of one tile fits the GPU's memory.
            GpuLostError: the GPU stopped working.
            EngineUnavailableError: the runtime failed otherwise.
        """
        with engine_errors():
            resident = self._device.resident(tiles)
        return self._runner.infer(np.asarray(tiles) if resident is None else resident)

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are in progress."""
        return self._runner.tiles_at_once

    def infer_each(self, tiles: Iterable[Given]) -> Iterator[Outputs]:
        """The outputs for each tile (tile_px, tile_px, 3) or frame, in order, a batch at a time; errors as `infer`."""
        return in_callers_context(self._runner.infer_each(tiles))


def load(
    bundle: Bundle,
    precision: Precision,
    threads: int | None,
    device: str | None,
    *,
    engine_file: Path | None = None,
    tell: Tell = lambda _text: None,
) -> TensorRTEngine:
    """The bundle's graph in TensorRT, on the GPU that the engine was built on; see `load_with`."""
    return load_with("tensorrt", bundle, precision, device, engine_file=engine_file, tell=tell)


@callers_context()
def load_with(
    name: ApiName,
    bundle: Bundle,
    precision: Precision,
    device: str | None,
    *,
    engine_file: Path | None,
    tell: Tell = lambda _text: None,
) -> TensorRTEngine:
    """The bundle's graph in one of the two libraries: the given engine file, the cache's engine, or one built now.

    One tile is computed as a check, so that an engine that does not run is refused here.

    Args:
        name: the library.
        bundle: the verified model.
        precision: that of the graph.
        device: None or "cuda" for the first GPU, "cuda:1" and so on.
        engine_file: an engine with its manifest beside it; None to use the cache.
        tell: called before an engine is built.

    Raises:
        EngineUnavailableError: the graph, the driver, the library or the GPU is not available here, or the engine was
            built for another GPU or version.
        BundleError: the engine file is damaged, or was built from another model.
        MemoryExhaustedError: not even a batch of one tile fits the GPU's memory.
        GpuLostError: the GPU stopped working.
    """
    graph = graph_of(bundle, precision)
    if not nvidia_driver_is_loaded():
        raise EngineUnavailableError(
            f"There is no NVIDIA driver here, so the {name} engine has no GPU to run on. Use --engine openvino."
        )
    api, cuda = import_api(name), import_cuda()
    gpu = find_gpu(cuda, device)
    if api.is_rtx and not hasattr(api.trt.ComputeCapability, gpu.target.upper()):
        raise EngineUnavailableError(
            f"{api.title} {api.version} does not run on {gpu.name} ({gpu.target}). Use --engine triton or tensorrt."
        )
    origin = origin_of(api, bundle, precision, (gpu.target,), gpu=gpu.name)
    place = CudaGpu(cuda, gpu.number)
    with engine_errors():
        if engine_file is None:
            file = _cached_or_built(api, graph, origin, place, tell)
        else:
            file = read_engine(engine_file)
            require_origin(file.manifest, origin, engine_file.name)
        compiled_for = file.manifest.origin.model_copy(update={"targets": origin.targets, "gpu": origin.gpu})
        kernels = cache_folder(CACHE) / f"{compiled_for.key}.kernels"
        opened = load_device(api, place, file, graph=graph, kernels=kernels)
    engine = TensorRTEngine(opened, file.manifest, Numerics(name, api.version, precision, gpu.name))
    engine.infer(bundle.golden.tiles[:1])
    return engine


def _cached_or_built(api: Api, graph: bytes, origin: Origin, place: CudaGpu, tell: Tell) -> EngineFile:
    """The cached engine of this origin; if it is missing or damaged, a new one, which is cached if possible."""
    path = cache_folder(CACHE) / f"{origin.key}.engine"
    content, manifest = read_cached(path), read_cached(manifest_path(path))
    if content is not None and manifest is not None:
        with suppress(BundleError):
            cached = checked_engine(content, manifest, path.name)
            if cached.manifest.origin == origin:
                return cached
    timings = path.with_name(re.sub(r"[^A-Za-z0-9.]+", "-", f"{api.version} {origin.gpu}") + ".timings")
    tell(
        f"building the {origin.precision} engine of {api.title} for {origin.gpu}, once: "
        f"this takes {'seconds' if api.is_rtx else 'minutes'}"
    )
    place.runtime()  # the library builds for the thread's current GPU
    built = build(api, graph, origin, timing_cache=None if api.is_rtx else read_cached(timings))
    with suppress(OutputError):  # without a writable cache the engine is built again next time
        write_cached(path, built.file.content)
        write_cached(manifest_path(path), built.file.manifest.to_json())
        if built.timing_cache is not None:
            write_cached(timings, built.timing_cache)
    return built.file
