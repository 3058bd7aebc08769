"""Files that may hold code are read in a child process: what comes back is data, and is checked like any other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import BundleError, EngineUnavailableError

SCRIPTS = Path(__file__).parent / "children"
SECONDS_MAX = 900


def tensors_of_checkpoint(path: Path) -> bytes:
    """A safetensors file with the tensors of a `.pt` or `.pth` checkpoint.

    Raises:
        BundleError: it holds anything but tensors, or cannot be read. Nothing in it was run.
        EngineUnavailableError: PyTorch is not installed.
    """
    with _room() as room:
        target = room / "weights.safetensors"
        problem = _run("read_pickled_tensors.py", path.resolve(), target)
        if problem is not None:
            raise BundleError(
                f"{path.name} cannot be read as tensors alone, and nothing in it was run ({problem}). Save the "
                "weights with safetensors.torch.save_file(net.state_dict(), …) where you trained, and give that file."
            )
        return target.read_bytes()


def converted_torchscript(path: Path, images: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
    """The ONNX file of a TorchScript model, and its scores for these images (N, 3, H, W).

    Raises:
        BundleError: it cannot be loaded, run, or converted.
        EngineUnavailableError: PyTorch is not installed.
    """
    with _room() as room:
        given, graph, scores = room / "images.npy", room / "model.onnx", room / "scores.npy"
        np.save(given, images, allow_pickle=False)
        problem = _run("convert_torchscript.py", path.resolve(), given, graph, scores)
        if problem is not None:
            raise BundleError(
                f"{path.name} cannot be converted ({problem}). Load it where it was trained, and use "
                "mminfer_export.write_bundle on the module, or export it to ONNX there."
            )
        return graph.read_bytes(), np.load(scores, allow_pickle=False)


@contextmanager
def _room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mminfer-") as folder:
        yield Path(folder)


def _run(script: str, *arguments: Path) -> str | None:
    """Run a child to its end; None, or in one line why it failed.

    Raises:
        EngineUnavailableError: PyTorch is not installed.
    """
    if find_spec("torch") is None:
        raise EngineUnavailableError("This needs PyTorch. Install it: pip install 'mminfer[export]'.")
    # -P: nothing is imported from the folder of the script or of the user.
    command = [sys.executable, "-P", str(SCRIPTS / script), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_FORCE_")}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=SECONDS_MAX
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {SECONDS_MAX} s"
    if ended.returncode == 0:
        return None
    return _reason(ended.stderr) or f"the process ended with {ended.returncode}"


def _reason(stderr: str) -> str:
    """The exception that a traceback ends with, in one line and without this machine's paths."""
    lines = [line.strip() for line in stderr.splitlines() if line and not line.startswith((" ", "\t"))]
    frame = max((i for i, line in enumerate(lines) if line.startswith("Traceback")), default=-1)
    told = lines[frame + 1] if frame + 1 < len(lines) else ""
    words = [word for word in told.split() if os.sep not in word]
    return " ".join(words)[:200].rstrip(" .:")
