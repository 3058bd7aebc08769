"""Writes a bundle: all files and their checksums into a temporary folder, which is then renamed."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from melanoma_infer.bundle.bundle import Golden, ParityRow
from melanoma_infer.bundle.contents import CHECKSUMS, checksum_lines
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import OutputError
from melanoma_infer.tolerances import Precision

Tensors = Mapping[str, NDArray[Any]]


def seal_bundle(
    folder: Path,
    *,
    card: ModelCard,
    graphs: Mapping[Precision, bytes],
    golden: Golden,
    parity: Sequence[ParityRow],
    head: Tensors | None = None,
    weights: Tensors | None = None,
) -> Path:
    """Return `folder`, which now holds the bundle, complete or not at all. The same input gives the same bytes.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    entries: dict[str, Any] = {"tiles": golden.tiles, "patients": golden.patients, **golden.outputs}
    if golden.host_probabilities is not None:
        entries["host_probabilities"] = golden.host_probabilities
    buffer = io.BytesIO()
    # NumPy stamps every member with the year 1980, so the bytes do not tell when they were written.
    # Without allow_pickle, which NumPy 2.0 would store as one more array.
    np.savez_compressed(buffer, **entries)
    contents = {
        "card.json": card.model_dump_json(indent=1).encode(),
        "golden.npz": buffer.getvalue(),
        "parity.json": json.dumps({"rows": [row.model_dump() for row in parity]}, indent=1).encode(),
        **{f"model.{precision}.onnx": graph for precision, graph in graphs.items()},
    }
    if head is not None:
        contents["head.safetensors"] = save({name: np.ascontiguousarray(head[name]) for name in sorted(head)})
    if weights is not None:
        contents["weights.safetensors"] = save({name: np.ascontiguousarray(weights[name]) for name in sorted(weights)})
    try:
        return _write_whole(folder, {**contents, CHECKSUMS: checksum_lines(contents)})
    except OSError as error:
        raise OutputError(f"{folder.name} cannot be written ({error.strerror}). Choose another folder.") from error


def _write_whole(folder: Path, contents: Mapping[str, bytes]) -> Path:
    if folder.exists():
        raise OutputError(f"{folder.name} exists. A bundle is never changed: remove it, or choose another name.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in contents.items():
            (aside / name).write_bytes(content)
        aside.chmod(0o755)  # mkdtemp lets only its owner read; a bundle is shared
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
