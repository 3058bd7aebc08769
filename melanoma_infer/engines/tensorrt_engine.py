"""TensorRT: a bundle's graph on any NVIDIA GPU, by an engine that is built on it once and kept in the cache.

Built and untested: it has not run on a GPU yet. Nothing of NVIDIA's is imported before `load` found a driver.
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
from melanoma_infer.card import Precision
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.engines.batching import BatchRunner, engine_errors
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
from melanoma_infer.engines.tensorrt_api import Api, ApiName, import_api
from melanoma_infer.engines.tensorrt_build import build, graph_of, origin_of
from melanoma_infer.engines.tensorrt_device import Gpu, TensorRTDevice, find_gpu, import_cuda
from melanoma_infer.errors import BundleError, EngineUnavailableError, OutputError
from melanoma_infer.runtime.cache import cache_folder, read_cached, write_cached

CACHE = "engines"


class TensorRTEngine:
    """A graph on a GPU. A tile's last bits may depend on its batch's size."""

    def __init__(self, device: TensorRTDevice, manifest: EngineManifest, numerics: Numerics) -> None:
        self._device = device
        self._runner = BatchRunner(
            device,
            tile_px=manifest.inputs[0].shape[1],
            outputs={spec.name: spec.shape[1:] for spec in manifest.outputs},
            buckets=manifest.buckets,
        )
        self.numerics = numerics

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes in use: those that the GPU's memory has held so far."""
        return self._runner.buckets

    def infer(self, tiles: NDArray[np.uint8] | Any) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), batch after batch.

        Args:
            tiles: uint8; a NumPy array, or one that lies on this GPU and says so by `__cuda_array_interface__` or
                DLPack: it is read where it is.

        Raises:
            UsageError: the tiles have another shape, dtype or layout.
            MemoryExhaustedError: the GPU's memory does not hold a single tile's pass.
            GpuLostError: the GPU stopped working.
            EngineUnavailableError: the runtime failed otherwise.
        """
        resident = self._device.resident(tiles)
        return self._runner.infer(np.asarray(tiles) if resident is None else resident)

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are under way."""
        return self._runner.tiles_at_once

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs of each tile (tile_px, tile_px, 3), in order; errors as `infer`."""
        return self._runner.infer_each(tiles)


def load(
    bundle: Bundle,
    precision: Precision,
    threads: int | None,
    device: str | None,
    *,
    engine_file: Path | None = None,
) -> TensorRTEngine:
    """The bundle's graph in TensorRT, on the GPU that the engine was built on.

    As `load_with` says.
    """
    return load_with("tensorrt", bundle, precision, device, engine_file)


def load_with(
    name: ApiName, bundle: Bundle, precision: Precision, device: str | None, engine_file: Path | None
) -> TensorRTEngine:
    """The bundle's graph in one of the two libraries: from the file that was named, the cache, or built now.

    One tile is computed, so that what does not work here is refused here.

    Args:
        name: the library.
        bundle: the verified model.
        precision: of the graph.
        device: None or "cuda" for the first GPU, "cuda:1" and so on.
        engine_file: an engine with its manifest beside it; None for the cache's.

    Raises:
        EngineUnavailableError: the graph, the driver, the library or the GPU does not exist here, or the engine was
            built for another.
        BundleError: the file that was named is damaged, or of another model.
        MemoryExhaustedError: the GPU's memory does not hold a single tile's pass.
        GpuLostError: the GPU stopped working.
    """
    graph = graph_of(bundle, precision)
    _require_driver(name)
    api, cuda = import_api(name), import_cuda()
    gpu = find_gpu(cuda, device)
    _require_target(api, gpu)
    origin = origin_of(api, bundle, precision, (gpu.target,), gpu=gpu.name)
    engine = _named(engine_file, origin) if engine_file is not None else _kept_or_built(api, graph, origin)
    with engine_errors():
        opened = TensorRTDevice(api, cuda, gpu, engine, graph)
        opened.check_interface()
    loaded = TensorRTEngine(opened, engine.manifest, Numerics(name, api.version, precision, gpu.name))
    loaded.infer(bundle.golden.tiles[:1])
    return loaded


def _require_driver(name: ApiName) -> None:
    if not nvidia_driver_is_loaded():
        raise EngineUnavailableError(
            f"There is no NVIDIA driver here, so the {name} engine has no GPU to run on. Use --engine openvino."
        )


def _require_target(api: Api, gpu: Gpu) -> None:
    if api.is_rtx and not hasattr(api.trt.ComputeCapability, gpu.target.upper()):
        raise EngineUnavailableError(
            f"{api.title} {api.version} does not run on {gpu.name} ({gpu.target}). Use --engine triton or tensorrt."
        )


def _named(path: Path, origin: Origin) -> EngineFile:
    engine = read_engine(path)
    require_origin(engine.manifest, origin, path.name)
    return engine


def _kept_or_built(api: Api, graph: bytes, origin: Origin) -> EngineFile:
    """The cache's engine of this origin; one that is missing or damaged is built again and kept, where that works."""
    path = cache_folder(CACHE) / f"{origin.key}.engine"
    if (kept := _kept(path, origin)) is not None:
        return kept
    timings = path.with_name(re.sub(r"[^A-Za-z0-9.]+", "-", f"{api.version} {origin.gpu}") + ".timings")
    built = build(api, graph, origin, timing_cache=None if api.is_rtx else read_cached(timings))
    with suppress(OutputError):  # a cache that cannot be written costs the time to build, and nothing else
        write_cached(path, built.file.content)
        write_cached(manifest_path(path), built.file.manifest.to_json())
        if built.timing_cache is not None:
            write_cached(timings, built.timing_cache)
    return built.file


def _kept(path: Path, origin: Origin) -> EngineFile | None:
    content, manifest = read_cached(path), read_cached(manifest_path(path))
    if content is None or manifest is None:
        return None
    try:
        engine = checked_engine(content, manifest, path.name)
    except BundleError:
        return None
    return engine if engine.manifest.origin == origin else None
