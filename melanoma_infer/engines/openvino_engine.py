"""OpenVINO on the CPU: the default engine there. One tile a request, so results depend on neither batch nor threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines import quiet
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.runtime.cores import available_cores

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f32", "int8": "f32"}
"""Always set: the default is bf16 where the CPU has it. An fp16 file is computed in f32 on a CPU; an int8 file's other
layers too: in bf16 they are an eighth faster, but p99.9 |Δp| rose from 0.003 to 0.010 for the demo, with a decision
flip, and from 0.003 to 0.013 at full width, while bf16 alone gives 0.003."""
STREAMS_MAX = 8
"""Tiles computed at once, each on its share of the threads: one thread a tile has no one to wait for (a tenth faster
than two, on 2 cores). Each has its own copy of the weights and its own activations (at 512 px and full width about 150
MB in fp32, and half a second to compile, all at the same time)."""
REQUESTS_A_STREAM = 2
"""One is computed while the next lies ready."""
ONE_STREAM = {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False, "CACHE_DIR": ""}
"""Each stream is compiled alone: as fast, with the same bits. Not pinned: all would be pinned to the first core.

OpenVINO 2026.4 shares repacked weights between the streams of one compiled graph, and finds them by the address that
they were repacked from, where in int8 another layer's may lie by then. Of 355 loads of a small int8 network with two
streams 5 gave wrong features for every tile; of 1095 with one stream none did."""


class OpenVinoEngine:
    """A graph compiled by OpenVINO for the CPU, once a stream. One call at a time."""

    def __init__(self, bundle: Bundle, precision: Precision, threads: int | None) -> None:
        core = quiet.openvino().Core()
        model = core.read_model(bundle.graphs["fp32" if precision == "bf16" else precision])
        side = bundle.card.tile_px
        model.reshape({"tiles": [1, side, side, 3]})

        def compiled(share: int) -> Any:
            hints = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": share}
            return core.compile_model(model, "CPU", ONE_STREAM | hints)

        wanted = shares(threads or available_cores(), STREAMS_MAX)
        with ThreadPoolExecutor(len(wanted), "mminfer-compile") as pool:
            streams = list(pool.map(compiled, wanted))
        self._requests = [stream.create_infer_request() for _ in range(REQUESTS_A_STREAM) for stream in streams]
        self._names = ("probabilities", *bundle.card.outputs)
        self.numerics = Numerics("openvino", _version(), precision, "cpu")

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are under way."""
        return len(self._requests)

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), one request a tile."""
        answers = list(self.infer_each(tiles))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._names}

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs of each tile (tile_px, tile_px, 3), in order; the next tiles are asked for meanwhile."""
        under_way: deque[Any] = deque()
        requests = cycle(self._requests)
        try:
            for tile in tiles:
                if len(under_way) == len(self._requests):
                    yield self._answer(under_way.popleft())
                request = next(requests)
                request.start_async({"tiles": tile[None]})
                under_way.append(request)
            while under_way:
                yield self._answer(under_way.popleft())
        except RuntimeError as error:
            raise EngineUnavailableError("OpenVINO failed on a tile. Try --engine onnxruntime.") from error
        finally:
            for request in under_way:
                request.cancel()

    def _answer(self, request: Any) -> dict[str, NDArray[Any]]:
        request.wait()
        # Copied, because the request writes its next answer into the same memory.
        return {name: request.get_tensor(name).data.copy() for name in self._names}


def shares(threads: int, most: int) -> list[int]:
    """The threads of each stream: as many streams as threads, but not more than `most`; no thread is left out."""
    streams = min(threads, most)
    return [threads // streams + (stream < threads % streams) for stream in range(streams)]


def load(bundle: Bundle, precision: Precision, threads: int | None, device: str | None) -> OpenVinoEngine:
    """The bundle's graph, compiled for this CPU.

    Raises:
        EngineUnavailableError: OpenVINO, the precision or the device does not exist here.
    """
    if device not in (None, "cpu"):
        raise EngineUnavailableError(f"The openvino engine runs on the CPU, not on {device!r}. Leave --device out.")
    if precision == "bf16" and not cpu_has_bf16():
        raise EngineUnavailableError("This CPU has no bf16. Use --precision fp32.")
    if precision != "bf16" and precision not in bundle.graphs:
        raise EngineUnavailableError(
            f"The bundle has no {precision} graph (it has {', '.join(bundle.precisions)}). Choose one of these."
        )
    try:
        return OpenVinoEngine(bundle, precision, threads)
    except ImportError as error:
        raise EngineUnavailableError("OpenVINO does not load here. Install it: pip install openvino.") from error
    except RuntimeError as error:
        raise EngineUnavailableError(
            "OpenVINO cannot compile this bundle's graph. Try --engine onnxruntime."
        ) from error


def cpu_has_bf16() -> bool:
    """Whether OpenVINO runs bf16 on this CPU."""
    try:
        return "BF16" in quiet.openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError):
        return False


def _version() -> str:
    return str(quiet.openvino().__version__).split("-")[0]
