"""Every intermediate value of a graph for one tile, to compare two graphs whose outputs differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.engines import quiet
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.tolerances import Precision

SKIPPED = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear", "Unsqueeze", "Identity", "Shape", "Constant"})
"""Operators that change no number, or that only one of the graphs has."""


@dataclass(frozen=True)
class Value:
    """The output of a node: its name, the node's operator and the array in float32."""

    name: str
    op: str
    array: NDArray[np.float32]


def every_value(graph: bytes, tile: NDArray[np.uint8], *, engine: str, precision: Precision) -> list[Value]:
    """The floating-point values of a graph for a tile (1, H, W, 3), in the order of its nodes.

    Args:
        graph: a checked ONNX file.
        tile: uint8.
        engine: "openvino" for OpenVINO, else ONNX Runtime; the other one if that is not installed.
        precision: in which OpenVINO computes layers that are not quantised.

    Raises:
        EngineUnavailableError: neither runtime returns the intermediate values.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    # Every floating-point value becomes an output.
    typed = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name: value
        for value in (*typed.value_info, *typed.output)
        if value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    outputs = {value.name for value in model.graph.output}
    shown = [
        (name, node.op_type)
        for node in model.graph.node
        if node.op_type not in SKIPPED or outputs & set(node.output)
        for name in node.output
        if name in floats
    ]
    model.graph.output.extend(floats[name] for name, _ in shown if name not in outputs)
    content = model.SerializeToString()
    order = (_by_openvino, _by_onnxruntime) if engine == "openvino" else (_by_onnxruntime, _by_openvino)
    for run in order:
        try:
            arrays = run(content, tile, [name for name, _ in shown], precision)
        except (ImportError, RuntimeError, ValueError, EngineUnavailableError):
            continue
        return [Value(name, op, array.astype(np.float32)) for (name, op), array in zip(shown, arrays, strict=True)]
    raise EngineUnavailableError("No runtime returned the intermediate values of this graph. Install onnxruntime.")


def _by_onnxruntime(content: bytes, tile: NDArray[np.uint8], names: list[str], _precision: Precision) -> list[Any]:
    runtime = quiet.onnxruntime()
    from melanoma_infer.engines.onnx_engine import _errors

    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return list(session.run(names, {"tiles": tile}))
    except _errors() as error:
        raise EngineUnavailableError("ONNX Runtime did not return the intermediate values. Try OpenVINO.") from error


def _by_openvino(content: bytes, tile: NDArray[np.uint8], names: list[str], precision: Precision) -> list[Any]:
    from melanoma_infer.engines.openvino_engine import HINTS

    core = quiet.openvino().Core()
    model = core.read_model(content)
    model.reshape({"tiles": list(tile.shape)})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    answer = compiled({"tiles": tile})
    return [np.array(answer[name]) for name in names]
