"""TensorRT-RTX: a bundle's graph on an RTX GPU (sm_75 to sm_120, not sm_90 or sm_100).

Its engines are built in seconds on any machine; kernels are compiled on the GPU at load time. Not tested on a GPU yet.
Nothing of NVIDIA's is imported before `load` has found a driver.
"""

from __future__ import annotations

from pathlib import Path

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines.base import Tell
from melanoma_infer.engines.tensorrt_engine import TensorRTEngine, load_with
from melanoma_infer.tolerances import Precision


def load(
    bundle: Bundle,
    precision: Precision,
    threads: int | None,
    device: str | None,
    *,
    engine_file: Path | None = None,
    tell: Tell = lambda _text: None,
) -> TensorRTEngine:
    """The bundle's graph in TensorRT-RTX: `engine_file`, the cached engine, or one built now; see `load_with`."""
    return load_with("tensorrt-rtx", bundle, precision, device, engine_file=engine_file, tell=tell)
