"""What made a result: versions, machine, and the digest that says whether another run would give the same."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from melanoma_infer.runtime.cores import available_cores

TOOL = "mminfer"
RUNTIMES = (
    "numpy",
    "scipy",
    "pillow",
    "openslide-python",
    "openslide-bin",
    "pydicom",
    "tifffile",
    "imagecodecs",
    "simplejpeg",
    "onnx",
    "openvino",
    "onnxruntime",
    "torch",
    "triton",
)


try:
    VERSION = version(TOOL)
except PackageNotFoundError:
    VERSION = "0+uninstalled"


def versions() -> dict[str, str]:
    """Versions of this package and of what computes in it; packages that are not installed are left out."""
    found = {TOOL: VERSION, "python": platform.python_version()}
    for name in RUNTIMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """The machine, without its name."""
    return {"system": platform.system(), "machine": platform.machine(), "cores": available_cores()}


def digest_of(parts: Mapping[str, object]) -> str:
    """sha256 over values that JSON can hold, the same for the same values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
