"""Runs an ONNX graph as the user gave it: the reference for the wrapped graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines import quiet
from melanoma_infer.errors import BundleError

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], dict[str, NDArray[Any]]]
"""Outputs by name for inputs by name.

Raises:
    BundleError: the runtime fails.
"""


def load_onnx(content: bytes, names: Sequence[str]) -> Run:
    """A function that computes the named outputs by ONNX Runtime, or by OpenVINO in f32 if that is not installed.

    Args:
        content: a model that was checked (`graph_checks.self_contained_model`).
        names: of the outputs to compute.

    Raises:
        BundleError: the runtime cannot load it.
    """
    try:
        runtime = quiet.onnxruntime()
    except ImportError:
        return _in_openvino(content, names)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    from melanoma_infer.engines.onnx_engine import _errors

    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except _errors() as error:
        raise _cannot("ONNX Runtime", error) from error

    def run(feeds: Arrays) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))
        except _errors() as error:
            raise _cannot("ONNX Runtime", error) from error

    return run


def _in_openvino(content: bytes, names: Sequence[str]) -> Run:
    try:
        core = quiet.openvino().Core()
        compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise _cannot("OpenVINO", error) from error

    def run(feeds: Arrays) -> dict[str, NDArray[Any]]:
        try:
            answer = compiled(dict(feeds))
        except RuntimeError as error:
            raise _cannot("OpenVINO", error) from error
        return {name: np.array(answer[name]) for name in names}

    return run


def _cannot(runtime: str, error: Exception) -> BundleError:
    first = (str(error).strip().splitlines() or [""])[0]
    return BundleError(f"{runtime} cannot run the ONNX file: {first[:300]} Export the model again.")
