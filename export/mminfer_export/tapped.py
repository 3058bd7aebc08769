"""A graph run as it is written, with values from its inside: what calibration measures on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from melanoma_infer.bundle.graph_edit import copied
from melanoma_infer.engines import quiet
from melanoma_infer.errors import EngineUnavailableError


def tapped(model: onnx.ModelProto, values: Sequence[str]) -> Any:
    """An ONNX Runtime session of the model that also gives these values.

    Raises:
        EngineUnavailableError: ONNX Runtime is not installed.
    """
    opened = copied(model)
    present = {value.name for value in opened.graph.output}
    opened.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in values if name not in present
    )
    try:
        onnxruntime = quiet.onnxruntime()
    except ImportError as error:
        raise EngineUnavailableError(
            f"Exporting needs {error.name or 'a package'}, which is not installed. Install it: pip install "
            "'mminfer[export]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # As written: a fused DequantizeLinear would compute the int8 convolution with another rounding.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
