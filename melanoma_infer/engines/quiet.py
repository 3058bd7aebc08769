"""OpenVINO and ONNX Runtime, imported with their telemetry disabled.

By default both report to a server and keep an identifier in the home folder; ONNX Runtime does so from native code that
no Python hook sees. mminfer opens no connection, so telemetry is disabled before either is first imported. A program
that imports one of them earlier must disable it itself.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import cast

OPENVINO_TELEMETRY = "openvino_telemetry"
ONNXRUNTIME_OPT_OUT = "ORT_DISABLE_TELEMETRY"


def openvino() -> ModuleType:
    """The openvino module, which falls back to a stub if its telemetry package cannot be imported.

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
    """The onnxruntime module, which reads its opt-out variable once, when it is loaded.

    Raises:
        ImportError: it is not installed.
    """
    os.environ[ONNXRUNTIME_OPT_OUT] = "1"
    import onnxruntime

    return cast("ModuleType", onnxruntime)
