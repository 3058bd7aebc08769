"""ONNX Runtime on the CPU: the reference engine for bundles without weights of our own network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import quiet
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.tolerances import Precision

TILES_MAX = 8
"""Tiles computed at the same time, one thread each; every further tile needs memory for its own activations."""


class OnnxEngine:
    """A graph in an ONNX Runtime session. Not reentrant: one call at a time.

    Each request holds one tile and runs on one thread, because the last bits depend on the batch size (up to 6e-8 seen)
    and, in int8, on the number of threads that share a tile (1.5e-6).

    Args:
        session: an `onnxruntime.InferenceSession` with one thread per request.
        names: the outputs to compute.
        threads: tiles computed at the same time.
        numerics: what `session` computes with.
    """

    buckets = (1,)
    remarks: tuple[str, ...] = ()

    def __init__(self, session: Any, names: Sequence[str], threads: int, numerics: Numerics) -> None:
        self._session = session
        self._names = list(names)
        self._threads = threads
        self.numerics = numerics

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are in progress: those being computed, and as many again waiting."""
        return 2 * self._threads

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), one tile per request."""
        answers = list(self.infer_each(tiles))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._names}

    def infer_each(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Outputs]:
        """The outputs for each tile (tile_px, tile_px, 3), in order; the next tiles are prefetched meanwhile."""
        with ThreadPoolExecutor(self._threads, "mminfer-infer") as pool:
            pending: deque[Future[Outputs]] = deque()
            try:
                for tile in tiles:
                    pending.append(pool.submit(self._infer_one, tile))
                    if len(pending) == self.tiles_at_once:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _infer_one(self, tile: NDArray[np.uint8]) -> Outputs:
        try:
            answer = self._session.run(self._names, {"tiles": tile[None]})
        except _errors() as error:
            raise EngineUnavailableError("ONNX Runtime failed on a tile. Try --engine openvino.") from error
        return dict(zip(self._names, answer, strict=True))


def load(bundle: Bundle, precision: Precision, threads: int | None, device: str | None) -> OnnxEngine:
    """The bundle's graph in an ONNX Runtime session.

    Raises:
        EngineUnavailableError: ONNX Runtime, the precision or the device is not available here.
    """
    if device not in (None, "cpu"):
        raise EngineUnavailableError(f"The onnxruntime engine runs on the CPU, not on {device!r}. Omit --device.")
    if precision not in bundle.graphs:
        raise EngineUnavailableError(
            f"The bundle has no {precision} graph. Choose a precision that it has: {', '.join(bundle.precisions)}."
        )
    try:
        onnxruntime = quiet.onnxruntime()
    except ImportError as error:
        raise EngineUnavailableError(
            "ONNX Runtime does not load here. Install it: pip install 'mminfer[onnxruntime]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(bundle.graphs[precision], options, providers=["CPUExecutionProvider"])
    except _errors() as error:
        raise EngineUnavailableError("ONNX Runtime cannot load this bundle's graph. Try --engine openvino.") from error
    return OnnxEngine(
        session,
        names=("probabilities", *bundle.card.outputs),
        threads=min(threads or available_cores(), TILES_MAX),
        numerics=Numerics("onnxruntime", str(onnxruntime.__version__), precision, "cpu"),
    )


def _errors() -> tuple[type[Exception], ...]:
    """The exceptions that ONNX Runtime raises: its own classes share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)
