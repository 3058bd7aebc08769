"""Runtimes imported without what they tell their makers.

As installed, OpenVINO and ONNX Runtime each report to a server and keep an identifier in the home folder, ONNX Runtime
from native code that no Python hook sees. Nothing here opens a connection, so both are told not to before they are
first imported. A program that imported one of them earlier has to see to that itself.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import cast

OPENVINO_TELEMETRY = "openvino_telemetry"
ONNXRUNTIME_OPT_OUT = "ORT_DISABLE_TELEMETRY"


def openvino() -> ModuleType:
    """OpenVINO, which uses a stub of its own where its telemetry package cannot be imported.

    Raises:
        ImportError: it is not installed.
    """
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    loaded = modules.get(OPENVINO_TELEMETRY)
    modules[OPENVINO_TELEMETRY] = None
    try:
        import openvino

        return cast("ModuleType", openvino)
    finally:
        del modules[OPENVINO_TELEMETRY]
        if loaded is not None:
            modules[OPENVINO_TELEMETRY] = loaded


def onnxruntime() -> ModuleType:
    """ONNX Runtime, which reads its opt-out once, when it is loaded.

    Raises:
        ImportError: it is not installed.
    """
    os.environ[ONNXRUNTIME_OPT_OUT] = "1"
    import onnxruntime

    return cast("ModuleType", onnxruntime)
