"""A model on disk, opened only after every byte has been hashed.

``NAME.mminfer/`` holds ``card.json``, ``model.<precision>.onnx``, ``golden.npz``, ``parity.json``, optionally
``head.safetensors`` and ``weights.safetensors``, and ``SHA256SUMS`` over all of them. Nothing is ever unpickled, an
unlisted file is refused, and runtimes get the verified bytes, never a path.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.bundle.head import Head
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError
from melanoma_infer.tolerances import PRECISIONS, Precision

PACKAGED = Path(__file__).parent
CHECKSUMS = "SHA256SUMS"
REQUIRED = ("card.json", "golden.npz", "parity.json")
OPTIONAL = ("head.safetensors", "weights.safetensors")
GRAPHS: dict[str, Precision] = {f"model.{precision}.onnx": precision for precision in PRECISIONS}

READERS = 2
"""Files of a bundle that are read and hashed in parallel."""
GOLDEN_TILES_MAX = 4
GOLDEN_BYTES_MAX = 1 << 28
"""Largest accepted size of golden.npz when unpacked: four tiles of 4096 px are 201 MB."""

_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+)\n")


class ParityRow(BaseModel):
    """How far an engine at a precision was from the reference, and on what that was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    precision: Precision
    tiles: int
    max_dp: float
    p999_dp: float
    max_dmm: float | None
    p999_dmm: float | None
    decision_flips: int
    on: str


@dataclass(frozen=True)
class Golden:
    """Tiles whose outputs are known, to compare every engine with.

    tiles: uint8 (n, tile_px, tile_px, 3), n ≤ 4 · patients: float64 (n, P), one-hot · outputs: by name, first axis n ·
    host_probabilities: float64 (n, K), the head's answer for `patients`; None without features.
    """

    tiles: NDArray[np.uint8]
    patients: NDArray[np.float64]
    outputs: dict[str, NDArray[Any]]
    host_probabilities: NDArray[np.float64] | None


@dataclass(frozen=True)
class Bundle:
    """A verified model: its card, the bytes of its graphs, and what its outputs must be."""

    name: str
    digest: str
    card: ModelCard
    graphs: Mapping[Precision, bytes]
    head: Head | None
    golden: Golden
    parity: tuple[ParityRow, ...]
    weights: bytes | None = field(default=None, repr=False)

    @cached_property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that have a graph."""
        return tuple(self.graphs)

    def parity_of(self, engine: str, precision: str) -> ParityRow | None:
        """The sealed parity of an engine at a precision, or None if it was never measured."""
        return next((row for row in self.parity if (row.engine, row.precision) == (engine, precision)), None)


def open_bundle(name_or_path: str | Path) -> Bundle:
    """The verified bundle of that name (packaged, such as "demo") or at that path.

    Raises:
        BundleError: it does not exist, a byte differs from SHA256SUMS, a file is unlisted or missing, or its content
            cannot be trusted by this version.
    """
    if isinstance(name_or_path, str) and name_or_path in packaged_bundles():
        folder = PACKAGED / f"{name_or_path}.mminfer"
    elif not (folder := Path(name_or_path)).is_dir():
        names = ", ".join(packaged_bundles()) or "none"
        raise BundleError(
            f"There is no bundle {folder.name!r}. Give the path of a NAME.mminfer folder, or the name of a packaged "
            f"one ({names})."
        )
    contents = _verified_contents(folder)
    card = parse_card(contents["card.json"])
    graphs = {precision: contents[name] for name, precision in GRAPHS.items() if name in contents}
    if "fp32" not in graphs:
        raise BundleError(f"Bundle {folder.stem}: model.fp32.onnx is missing. Export the bundle again.")
    for graph in graphs.values():
        check_graph(graph, card)
    try:
        parity = tuple(ParityRow.model_validate(row) for row in json.loads(contents["parity.json"])["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError("parity.json cannot be read. Export the bundle again.") from error
    if "weights.safetensors" in contents:
        finite_tensors(contents["weights.safetensors"], "weights.safetensors")
    return Bundle(
        name=folder.stem,
        digest=hashlib.sha256(contents[CHECKSUMS]).hexdigest(),
        card=card,
        graphs=graphs,
        head=_head(contents.get("head.safetensors"), card),
        golden=_golden(contents["golden.npz"], card),
        parity=parity,
        weights=contents.get("weights.safetensors"),
    )


def packaged_bundles() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.stem for path in PACKAGED.glob("*.mminfer"))


def checksum_lines(contents: Mapping[str, bytes]) -> bytes:
    """SHA256SUMS of these files, in its only accepted form: sorted, lower case, two spaces."""
    lines = [f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)]
    return "".join(lines).encode("ascii")


def parse_card(text: bytes) -> ModelCard:
    """The model card in these JSON bytes.

    Raises:
        BundleError: it is not a card that this version understands.
    """
    try:
        return ModelCard.model_validate_json(text, strict=False)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "card"
        raise BundleError(f"card.json is not a valid model card: {where}: {problem['msg']}") from error


def _verified_contents(folder: Path) -> dict[str, bytes]:
    """Every file of the bundle by name, after its bytes were compared with SHA256SUMS."""
    try:
        paths = sorted(folder.iterdir())
        for path in paths:
            if path.is_symlink() or not path.is_file():
                raise BundleError(
                    f"Bundle {folder.stem}: {path.name!r} is a link or a folder. A bundle holds plain files."
                )
        with ThreadPoolExecutor(READERS) as pool:
            contents, digests = {}, {}
            for path, (content, digest) in zip(paths, pool.map(_read_and_hash, paths), strict=True):
                contents[path.name], digests[path.name] = content, digest
    except OSError as error:
        raise BundleError(f"Bundle {folder.stem} cannot be read ({error.strerror}). Check its permissions.") from error
    if CHECKSUMS not in contents:
        raise BundleError(f"Bundle {folder.stem} has no {CHECKSUMS}. Export the bundle again.")
    text = contents[CHECKSUMS].decode("ascii", errors="replace")
    listed = {file: digest for digest, file in _CHECKSUM_LINE.findall(text)}
    # Only one form is accepted, so that no byte of it can change unnoticed.
    if "".join(f"{digest}  {file}\n" for file, digest in sorted(listed.items())) != text:
        raise BundleError(
            f"Bundle {folder.stem}: {CHECKSUMS} is damaged. Copy the bundle again from a source you trust."
        )
    known = {*REQUIRED, *OPTIONAL, *GRAPHS}
    for name in sorted(contents.keys() - {CHECKSUMS}):
        if name not in listed or name not in known:
            raise BundleError(f"Bundle {folder.stem} holds a file that does not belong to it: {name!r}. Remove it.")
    for name, digest in listed.items():
        if digests.get(name) != digest:
            raise BundleError(
                f"Bundle {folder.stem}: {name} is missing or differs from {CHECKSUMS}. Copy the bundle again from a "
                "source you trust; do not repair it by hand."
            )
    if missing := [name for name in REQUIRED if name not in listed]:
        raise BundleError(f"Bundle {folder.stem} has no {missing[0]}. Export the bundle again.")
    return contents


def _read_and_hash(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _head(content: bytes | None, card: ModelCard) -> Head | None:
    if "features" not in card.outputs:
        return None
    if content is None:
        raise BundleError(
            "The card names the output `features`, but head.safetensors is missing. Export the bundle again."
        )
    head = Head.from_tensors(finite_tensors(content, "head.safetensors"))
    if head.w1_patient.shape[1] != card.patient_columns or len(head.b3) != len(card.classes):
        raise BundleError(
            "head.safetensors does not fit the card's patient fields and classes. Export the bundle again."
        )
    return head


def finite_tensors(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, all of them finite.

    Raises:
        BundleError: it is not a safetensors file, or a value is NaN or infinite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, NDArray[Any]] = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{name} is not a safetensors file. Export the bundle again.") from error
    require_finite(tensors.items(), name)
    return tensors


def require_finite(tensors: Iterable[tuple[str, NDArray[Any]]], name: str) -> None:
    """Require every floating-point value to be finite.

    Raises:
        BundleError: a value is NaN or infinite.
    """
    for key, tensor in tensors:
        if np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all():
            raise BundleError(f"{name}: {key} holds NaN or infinite values. The model cannot be trusted.")


def _golden(content: bytes, card: ModelCard) -> Golden:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > GOLDEN_BYTES_MAX:
            raise BundleError(f"golden.npz unpacks to {size} bytes; at most {GOLDEN_BYTES_MAX} are accepted.")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            entries = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise BundleError("golden.npz cannot be read. Export the bundle again.") from error
    host = entries.pop("host_probabilities", None)
    expected = {"tiles", "patients", "probabilities", *card.outputs}
    if set(entries) != expected or (host is None) != ("features" not in card.outputs):
        raise BundleError("golden.npz does not hold what the card names. Export the bundle again.")
    tiles, patients = entries.pop("tiles"), entries.pop("patients")
    n = len(tiles)
    fits = (
        1 <= n <= GOLDEN_TILES_MAX
        and tiles.dtype == np.uint8
        and tiles.shape[1:] == (card.tile_px, card.tile_px, 3)
        and patients.shape == (n, card.patient_columns)
        and all(len(output) == n for output in entries.values())
        and entries["probabilities"].shape == (n, len(card.classes))
    )
    if not fits:
        raise BundleError("golden.npz holds tiles or outputs whose shape is not the card's. Export the bundle again.")
    require_finite(entries.items(), "golden.npz")
    return Golden(tiles, patients, entries, host)
