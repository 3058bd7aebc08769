"""Files that may hold code, read in a child process: it returns data, which is checked like any other data."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import BundleError, EngineUnavailableError
from melanoma_infer.runtime.child import run_child

CHILDREN = "mminfer_export.children"
SECONDS_MAX = 900


def tensors_of_checkpoint(path: Path) -> bytes:
    """A safetensors file with the tensors of a `.pt` or `.pth` checkpoint.

    Raises:
        BundleError: the checkpoint holds anything but tensors, or cannot be read. Nothing in it was run.
        EngineUnavailableError: PyTorch is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="mminfer-") as folder:
        target = Path(folder, "weights.safetensors")
        problem = _run("read_pickled_tensors", path.resolve(), target)
        if problem is not None:
            raise BundleError(
                f"{path.name} cannot be read as plain tensors; nothing in it was run ({problem}). Save the weights "
                "with safetensors.torch.save_file(net.state_dict(), …) where you trained them, and use that file."
            )
        return target.read_bytes()


def converted_torchscript(path: Path, images: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
    """The ONNX file of a TorchScript model, and its scores for these images (N, 3, H, W).

    Raises:
        BundleError: the model cannot be loaded, run or converted.
        EngineUnavailableError: PyTorch is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="mminfer-") as folder:
        given, graph, scores = (Path(folder, name) for name in ("images.npy", "model.onnx", "scores.npy"))
        np.save(given, images, allow_pickle=False)
        problem = _run("convert_torchscript", path.resolve(), given, graph, scores)
        if problem is not None:
            raise BundleError(
                f"{path.name} cannot be converted to ONNX ({problem}). Where the model was trained, call "
                "mminfer_export.write_bundle on the module, or export it to ONNX."
            )
        return graph.read_bytes(), np.load(scores, allow_pickle=False)


def _run(child: str, *arguments: Path) -> str | None:
    """Run a module of CHILDREN; None when it succeeded, else why it failed.

    Raises:
        EngineUnavailableError: PyTorch is not installed.
    """
    if find_spec("torch") is None:
        raise EngineUnavailableError("This needs PyTorch. Install it: pip install 'mminfer[export]'.")
    failure = run_child(f"{CHILDREN}.{child}", *arguments, seconds=SECONDS_MAX)
    return None if failure is None else failure.error or failure.ending
