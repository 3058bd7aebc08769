"""OpenVINO on the CPU, the default engine there. One tile per request: batch size and threads change no bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import quiet
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.tolerances import Precision

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f32", "int8": "f32"}
"""OpenVINO's inference precision for each of ours. Always set, because its default is bf16 on a CPU that supports it.

A CPU computes an fp16 graph in f32, and also the layers of an int8 graph that are not int8: bf16 makes those an eighth
faster, but p99.9 |Δp| rose from 0.003 to 0.010 for the demo, with one decision flip, and from 0.003 to 0.013 at full
width, while bf16 alone gives 0.003."""
STREAMS_MAX = 8
"""Tiles computed at the same time, each on its share of the threads. A thread that computes a tile alone waits for no
other (10 % faster than two threads per tile, on 2 cores). Each stream has its own copy of the weights and its own
activations: at 512 px and full width about 150 MB in fp32, and half a second to compile, all at the same time."""
REQUESTS_PER_STREAM = 2
"""One is computed while the next one waits."""
ONE_STREAM = {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False, "CACHE_DIR": ""}
"""Every stream is compiled separately: as fast, and bit-identical. Not pinned, or all would share the first core.

OpenVINO 2026.4 shares repacked weights between the streams of one compiled graph and looks them up by the address of
the original weights. In int8 that address may belong to another layer by then: 5 of 355 loads of a small int8 network
with two streams gave wrong features for every tile, and none of 1095 loads with one stream did."""


class OpenVinoEngine:
    """A graph compiled by OpenVINO for the CPU, once for each stream. Not reentrant: one call at a time.

    Args:
        requests: OpenVINO inference requests, which take turns.
        names: the outputs to compute.
        numerics: what `requests` compute with.
    """

    buckets = (1,)
    remarks: tuple[str, ...] = ()

    def __init__(self, requests: Sequence[Any], names: Sequence[str], numerics: Numerics) -> None:
        self._requests = requests
        self._names = names
        self.numerics = numerics

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are in progress."""
        return len(self._requests)

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), one tile per request."""
        answers = list(self.infer_each(tiles))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._names}

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs for each tile (tile_px, tile_px, 3), in order; the next tiles are prefetched meanwhile."""
        pending: deque[Any] = deque()
        requests = cycle(self._requests)
        try:
            for tile in tiles:
                if len(pending) == len(self._requests):
                    yield self._answer(pending.popleft())
                request = next(requests)
                request.start_async({"tiles": tile[None]})
                pending.append(request)
            while pending:
                yield self._answer(pending.popleft())
        except RuntimeError as error:
            raise EngineUnavailableError("OpenVINO failed on a tile. Try --engine onnxruntime.") from error
        finally:
            for request in pending:
                request.cancel()

    def _answer(self, request: Any) -> dict[str, NDArray[Any]]:
        request.wait()
        # Copied, because the request writes its next answer to the same memory.
        return {name: request.get_tensor(name).data.copy() for name in self._names}


def load(bundle: Bundle, precision: Precision, threads: int | None, device: str | None) -> OpenVinoEngine:
    """The bundle's graph, compiled for this CPU.

    Raises:
        EngineUnavailableError: OpenVINO, the precision or the device is not available here.
    """
    if device not in (None, "cpu"):
        raise EngineUnavailableError(f"The openvino engine runs on the CPU, not on {device!r}. Omit --device.")
    if precision == "bf16" and not cpu_has_bf16():
        raise EngineUnavailableError("This CPU does not support bf16. Use --precision fp32.")
    if precision != "bf16" and precision not in bundle.graphs:
        raise EngineUnavailableError(
            f"The bundle has no {precision} graph. Choose a precision that it has: {', '.join(bundle.precisions)}."
        )
    try:
        openvino = quiet.openvino()
    except ImportError as error:
        raise EngineUnavailableError("OpenVINO does not load here. Install it: pip install openvino.") from error
    try:
        requests = _compiled_requests(openvino.Core(), bundle, precision, threads or available_cores())
    except RuntimeError as error:
        raise EngineUnavailableError(
            "OpenVINO cannot compile this bundle's graph. Try --engine onnxruntime."
        ) from error
    numerics = Numerics("openvino", str(openvino.__version__).split("-")[0], precision, "cpu")
    return OpenVinoEngine(requests, ("probabilities", *bundle.card.outputs), numerics)


def _compiled_requests(core: Any, bundle: Bundle, precision: Precision, threads: int) -> list[Any]:
    """Inference requests of the bundle's graph, REQUESTS_PER_STREAM for each stream; the streams take turns."""
    model = core.read_model(bundle.graphs["fp32" if precision == "bf16" else precision])
    side = bundle.card.tile_px
    model.reshape({"tiles": [1, side, side, 3]})

    def compiled(stream_threads: int) -> Any:
        hints = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": stream_threads}
        return core.compile_model(model, "CPU", ONE_STREAM | hints)

    shares = threads_per_stream(threads, STREAMS_MAX)
    with ThreadPoolExecutor(len(shares), "mminfer-compile") as pool:
        streams = list(pool.map(compiled, shares))
    return [stream.create_infer_request() for _ in range(REQUESTS_PER_STREAM) for stream in streams]


def threads_per_stream(threads: int, streams_max: int) -> list[int]:
    """The number of threads of each stream: one stream per thread up to `streams_max`, and every thread is used."""
    streams = min(threads, streams_max)
    return [threads // streams + (stream < threads % streams) for stream in range(streams)]


def cpu_has_bf16() -> bool:
    """Whether OpenVINO can run bf16 on this CPU."""
    try:
        return "BF16" in quiet.openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError):
        return False
