"""ONNX Runtime on the CPU: the reference of bundles that have no weights of our own network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines import quiet
from melanoma_infer.engines.base import Numerics, OneAtATime, Outputs
from melanoma_infer.errors import EngineUnavailableError


class OnnxEngine(OneAtATime):
    """A graph loaded by ONNX Runtime, one tile a request: its last bits depend on the batch (6e-8 seen)."""

    def __init__(self, bundle: Bundle, precision: Precision, threads: int | None) -> None:
        onnxruntime = quiet.onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            bundle.graphs[precision], options, providers=["CPUExecutionProvider"]
        )
        self._names = ["probabilities", *bundle.card.outputs]
        self.numerics = Numerics("onnxruntime", str(onnxruntime.__version__), precision, "cpu")

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), one request a tile."""
        try:
            answers = [self._session.run(self._names, {"tiles": tile[None]}) for tile in tiles]
        except _errors() as error:
            raise EngineUnavailableError("ONNX Runtime failed on a tile. Try --engine openvino.") from error
        return {name: np.concatenate([answer[i] for answer in answers]) for i, name in enumerate(self._names)}


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
