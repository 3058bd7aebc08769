"""OpenVINO on the CPU: the default engine there. One tile a request, so results do not depend on batch or threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle import Bundle
from melanoma_infer.card import Precision
from melanoma_infer.engines import quiet
from melanoma_infer.engines.base import Numerics, Outputs
from melanoma_infer.errors import EngineUnavailableError

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f32", "int8": "f32"}
"""Always set: the default is bf16 where the CPU has it. An fp16 file is computed in f32 on a CPU; an int8 file's other
layers too."""


class OpenVinoEngine:
    """A graph compiled by OpenVINO for the CPU."""

    def __init__(self, bundle: Bundle, precision: Precision, threads: int | None) -> None:
        core = quiet.openvino().Core()
        model = core.read_model(bundle.graphs["fp32" if precision == "bf16" else precision])
        side = bundle.card.tile_px
        model.reshape({"tiles": [1, side, side, 3]})
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "CACHE_DIR": "",
        }
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        self._request = core.compile_model(model, "CPU", config).create_infer_request()
        self._names = ("probabilities", *bundle.card.outputs)
        self.numerics = Numerics("openvino", _version(), precision, "cpu")

    def infer(self, tiles: NDArray[np.uint8]) -> Outputs:
        """The graph's outputs for tiles (N, tile_px, tile_px, 3), one request a tile."""
        answers = [self._infer_one(tile) for tile in tiles]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self._names}

    def _infer_one(self, tile: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        try:
            self._request.infer({"tiles": tile[None]})
        except RuntimeError as error:
            raise EngineUnavailableError("OpenVINO failed on a tile. Try --engine onnxruntime.") from error
        # Copied, because the request writes its next answer into the same memory.
        return {name: self._request.get_tensor(name).data.copy() for name in self._names}


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
