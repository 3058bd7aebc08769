"""A bundle's graph → an engine of TensorRT, built on the GPU that will run it. Built and untested on one so far."""

from __future__ import annotations

from pathlib import Path

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.cuda import CudaGpu, find_gpu, import_cuda
from melanoma_infer.engines.device import nvidia_driver_is_loaded
from melanoma_infer.engines.engine_file import EngineManifest, place_file, write_engine
from melanoma_infer.engines.slots import engine_errors
from melanoma_infer.engines.tensorrt_api import import_api
from melanoma_infer.engines.tensorrt_build import build, graph_of, origin_of
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.tolerances import Precision

TIMINGS = ".timings"
"""The builder's timing cache for this GPU, next to the engine: the next build takes a tenth of the time."""


def build_engine(
    bundle: Bundle,
    precision: Precision,
    out: Path | None = None,
    *,
    device: str | None = None,
    strip_weights: bool = False,
) -> tuple[Path, EngineManifest]:
    """Build the engine on a GPU of this machine, and return its path (the manifest is next to it) and the manifest.

    Args:
        bundle: the verified model.
        precision: one that the bundle has a graph of.
        out: the file to write; None for `./<bundle>.<precision>.<target>.engine`.
        device: None or "cuda" for the first GPU, "cuda:1" and so on.
        strip_weights: leave the weights out; the engine gets them from the bundle when it is loaded.

    Raises:
        EngineUnavailableError: there is no such graph, no NVIDIA driver, no TensorRT or no GPU here, or TensorRT
            refuses to build.
        BundleError: the network that TensorRT read is not the one in the graph.
        MemoryExhaustedError: there was not enough memory to build.
        OutputError: the file cannot be written, or another file is there.
    """
    graph = graph_of(bundle, precision)
    if not nvidia_driver_is_loaded():
        raise EngineUnavailableError(
            "TensorRT builds an engine on the GPU that will run it, and this machine has no NVIDIA driver. Run the "
            "same command on the machine with the GPU; --to tensorrt-rtx needs none."
        )
    api, cuda = import_api("tensorrt"), import_cuda()
    gpu = find_gpu(cuda, device)
    with engine_errors():
        CudaGpu(cuda, gpu.number).runtime()  # TensorRT builds for the thread's current GPU
    path = out if out is not None else Path(f"{bundle.name}.{precision}.{gpu.target}.engine")
    timings = path.with_name(path.name + TIMINGS)
    origin = origin_of(api, bundle, precision, (gpu.target,), gpu=gpu.name, strip_weights=strip_weights)
    built = build(api, graph, origin, timing_cache=timings.read_bytes() if timings.is_file() else None)
    write_engine(path, built.file)
    if built.timing_cache is not None:
        place_file(timings, built.timing_cache)
    return path, built.file.manifest
