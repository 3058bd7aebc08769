"""A bundle's graph → an engine of TensorRT, built on the GPU that will run it. Built and untested on one so far."""

from __future__ import annotations

from pathlib import Path

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.cuda import CudaGpu, find_gpu, import_cuda
from melanoma_infer.engines.device import nvidia_driver_is_loaded
from melanoma_infer.engines.engine_file import EngineManifest, place_file, write_engine
from melanoma_infer.engines.slots import engine_errors
from melanoma_infer.engines.tensorrt_api import Api, import_api
from melanoma_infer.engines.tensorrt_build import PluginTail, as_built, build, graph_of, origin_of
from melanoma_infer.engines.torch_engine import network_of
from melanoma_infer.errors import EngineUnavailableError, UsageError
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
    plugins: bool = False,
) -> tuple[Path, EngineManifest]:
    """Build the engine on a GPU of this machine, and return its path (the manifest is next to it) and the manifest.

    Args:
        bundle: the verified model.
        precision: one that the bundle has a graph of.
        out: the file to write; None for `./<bundle>.<precision>.<target>.engine`.
        device: None or "cuda" for the first GPU, "cuda:1" and so on.
        strip_weights: leave the weights out; the engine gets them from the bundle when it is loaded.
        plugins: compute the tail by this project's kernels, which the engine then contains.

    Raises:
        UsageError: `plugins` and `strip_weights` are both given.
        EngineUnavailableError: there is no such graph, no NVIDIA driver, no TensorRT or no GPU here, TensorRT
            refuses to build, or this network, TensorRT or GPU has no plugins.
        BundleError: the network that TensorRT read is not the one in the graph.
        MemoryExhaustedError: there was not enough memory to build.
        OutputError: the file cannot be written, or another file is there.
    """
    if plugins and strip_weights:
        raise UsageError("The plugins' weights cannot be stripped. Give --plugins or --strip-weights, not both.")
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
    origin = origin_of(
        api, bundle, precision, (gpu.target,), gpu=gpu.name, strip_weights=strip_weights, plugins=plugins
    )
    tail = plugin_tail_of(api, bundle, as_built(graph, origin), gpu.target) if plugins else None
    built = build(api, graph, origin, timing_cache=timings.read_bytes() if timings.is_file() else None, tail=tail)
    write_engine(path, built.file)
    if built.timing_cache is not None:
        place_file(timings, built.timing_cache)
    return path, built.file.manifest


def plugin_tail_of(api: Api, bundle: Bundle, graph: bytes, target: str) -> PluginTail:
    """The tail of a bundle's graph, made of plugins.

    Args:
        api: the library.
        bundle: the verified model.
        graph: the bytes of the ONNX graph that is built.
        target: the GPU's, such as sm89.

    Raises:
        EngineUnavailableError: the network is not ours, or PyTorch, Triton, TensorRT or the GPU has no plugins.
    """
    if bundle.weights is None or bundle.card.network is None:
        raise EngineUnavailableError("The plugins compute the tail of our own network alone. Omit --plugins.")
    try:
        from mminfer_export import plugin_tail, tensorrt_plugins
    except ImportError as error:
        raise EngineUnavailableError(
            f"The plugins need {error.name or 'a package'}, which does not load here. Install it: pip install "
            "'mminfer[torch]'. Or omit --plugins."
        ) from error
    number = tensorrt_plugins.require_plugins(api, target)
    net = network_of(bundle)
    front = plugin_tail.split(graph, net)
    weights = plugin_tail.weights_of(net, is_half=front.is_half)
    return PluginTail(
        front.content, lambda network: tensorrt_plugins.add_tail(api.trt, network, front, weights, number)
    )
