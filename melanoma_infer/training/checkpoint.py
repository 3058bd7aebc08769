"""Checkpoints: one file for each whole epoch, with its digest beside it, and nothing in it that could run.

Lightning's checkpoint is a dictionary of tensors and plain values. Tensors are written as safetensors, the rest as JSON
in its header. The digest is written last: a checkpoint without it was not finished and is not used. The one before is
removed only then, so a run that is killed at any moment finds a whole one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from melanoma_infer.errors import OutputError, UsageError
from melanoma_infer.runtime.files import why_not_written, write_atomically

SUFFIX = ".safetensors"
SEAL = ".sha256"
PLAIN = "plain"
"""The name of the plain values in the header."""


def checkpoint_path(folder: Path, epochs: int) -> Path:
    """Where the checkpoint after so many epochs is."""
    return folder / f"epoch-{epochs:04d}{SUFFIX}"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder; None if there is none."""
    sealed = [seal.with_suffix(SUFFIX) for seal in folder.glob(f"epoch-*{SEAL}")]
    return max((path for path in sealed if path.exists()), default=None)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint in a file, after its digest was compared.

    Raises:
        UsageError: it cannot be read, or its bytes are not those that were sealed.
    """
    try:
        content, seal = path.read_bytes(), path.with_suffix(SEAL).read_text().strip()
        if hashlib.sha256(content).hexdigest() != seal:
            raise UsageError(
                f"{path.name} differs from the digest beside it: the file is damaged. Train again into another folder."
            )
        length = int.from_bytes(content[:8], "little")
        plain = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][PLAIN])
        restored: dict[str, Any] = _joined(plain, load(content))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UsageError(f"{path.name} cannot be read as a checkpoint. Train again into another folder.") from error
    return restored


class SealedCheckpoints(CheckpointIO):
    """How Lightning writes and reads checkpoints here."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint and then its digest, and remove all others of the folder.

        Raises:
            OutputError: it cannot be written.
        """
        target, tensors = Path(path), dict[str, Tensor]()
        plain = json.dumps(_parted(checkpoint, "", tensors))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            content = save(tensors, {PLAIN: plain})
            write_atomically(target, content)
            write_atomically(target.with_suffix(SEAL), f"{hashlib.sha256(content).hexdigest()}\n".encode())
            for other in target.parent.glob("epoch-*"):
                # The digest goes first: what has none is not used.
                if other.stem != target.stem:
                    other.with_suffix(SEAL).unlink(missing_ok=True)
                    other.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"The checkpoint cannot be written: {why_not_written(error)}") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint in a file, on the CPU."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its digest."""
        Path(path).with_suffix(SEAL).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def _parted(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON can hold it; tensors go to `tensors`. Kinds that JSON does not have are named."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _parted(each, f"{name}/{key}", tensors)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_parted(each, f"{name}/{i}", tensors) for i, each in enumerate(value)]}
    if isinstance(value, list):
        return [_parted(each, f"{name}/{i}", tensors) for i, each in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"checkpoint entry {name} is a {type(value).__name__}")


def _joined(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `_parted` took apart."""
    if isinstance(value, list):
        return [_joined(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "tuple":
        return tuple(_joined(each, tensors) for each in held)
    return {key: _joined(each, tensors) for key, each in held}
