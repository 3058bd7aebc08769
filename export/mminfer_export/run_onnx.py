"""An ONNX graph, run as it stands: what a wrapped one is compared with."""

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


def load_onnx(content: bytes, names: Sequence[str], *, optimised: bool = True) -> Run:
    """What computes the named outputs: ONNX Runtime, or OpenVINO in f32 where that is not installed.

    Args:
        content: a model that was checked (`graph_checks.self_contained_model`).
        names: outputs wanted.
        optimised: False: as ONNX Runtime runs it node by node.

    Raises:
        BundleError: the runtime cannot load it.
    """
    try:
        runtime = quiet.onnxruntime()
    except ImportError:
        return _in_openvino(content, names)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
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
