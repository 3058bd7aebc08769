"""ONNX Runtime on the CPU: the reference of bundles that have no weights of our own network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines import quiet
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.runtime.cores import available_cores

TILES_MAX = 8
"""Tiles computed at once, each on one thread; each more holds its own activations."""


class OnnxEngine:
    """A graph loaded by ONNX Runtime. One call at a time.

    One tile a request, and each request on one thread: last bits depend on the batch (6e-8 seen), and in int8 on how
    many threads share a tile (1.5e-6).
    """

    def __init__(self, bundle: Bundle, precision: Precision, threads: int | None) -> None:
        onnxruntime = quiet.onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            bundle.graphs[precision], options, providers=["CPUExecutionProvider"]
        )
        self._threads = min(threads or available_cores(), TILES_MAX)
        self._names = ["probabilities", *bundle.card.outputs]
        self.numerics = Numerics("onnxruntime", str(onnxruntime.__version__), precision, "cpu")

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are under way: those that are computed, and as many that lie ready."""
        return 2 * self._threads

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), one request a tile."""
        answers = list(self.infer_each(tiles))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._names}

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs of each tile (tile_px, tile_px, 3), in order; the next tiles are asked for meanwhile."""
        with ThreadPoolExecutor(self._threads, "mminfer-infer") as pool:
            under_way: deque[Future[Outputs]] = deque()
            try:
                for tile in tiles:
                    under_way.append(pool.submit(self._answer, tile))
                    if len(under_way) == self.tiles_at_once:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()

    def _answer(self, tile: NDArray[np.uint8]) -> Outputs:
        try:
            answer = self._session.run(self._names, {"tiles": tile[None]})
        except _errors() as error:
            raise EngineUnavailableError("ONNX Runtime failed on a tile. Try --engine openvino.") from error
        return dict(zip(self._names, answer, strict=True))


def load(bundle: Bundle, precision: Precision, threads: int | None, device: str | None) -> OnnxEngine:
    """The bundle's graph in an ONNX Runtime session.

    Raises:
        EngineUnavailableError: ONNX Runtime, the precision or the device does not exist here.
    """
    if device not in (None, "cpu"):
        raise EngineUnavailableError(f"The onnxruntime engine runs on the CPU, not on {device!r}. Leave --device out.")
    if precision not in bundle.graphs:
        raise EngineUnavailableError(
            f"The bundle has no {precision} graph (it has {', '.join(bundle.precisions)}). Choose one of these."
        )
    try:
        return OnnxEngine(bundle, precision, threads)
    except ImportError as error:
        raise EngineUnavailableError(
            "ONNX Runtime does not load here. Install it: pip install 'mminfer[onnxruntime]'."
        ) from error
    except _errors() as error:
        raise EngineUnavailableError("ONNX Runtime cannot load this bundle's graph. Try --engine openvino.") from error


def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own classes have no common base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)
