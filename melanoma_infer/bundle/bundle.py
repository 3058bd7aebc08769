"""A model on disk, opened only after every byte has been hashed.

``NAME.mminfer/`` holds ``card.json``, ``model.<precision>.onnx``, ``golden.npz``, ``parity.json``, optionally
``head.safetensors`` and ``weights.safetensors``, and ``SHA256SUMS`` over all of them. Nothing is ever unpickled, an
unlisted file is refused, and runtimes get the verified bytes, never a path.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from melanoma_infer.bundle.contents import Contents, bundle_contents, foreign_file
from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.bundle.head import Head
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError
from melanoma_infer.tolerances import PRECISIONS, Precision

REQUIRED = ("card.json", "golden.npz", "parity.json")
OPTIONAL = ("head.safetensors", "weights.safetensors")
GRAPHS: dict[str, Precision] = {f"model.{precision}.onnx": precision for precision in PRECISIONS}

GOLDEN_TILES_MAX = 4
GOLDEN_BYTES_MAX = 1 << 28
"""Largest accepted size of golden.npz when unpacked: four tiles of 4096 px are 201 MB."""


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


class CheckedGraphs(Mapping[Precision, bytes]):
    """The graphs of a bundle; each is checked before its bytes are given for the first time.

    Args:
        graphs: their verified bytes, by precision.
        card: what they have to fit.
    """

    def __init__(self, graphs: Mapping[Precision, bytes], card: ModelCard) -> None:
        self._graphs, self._card = graphs, card
        self._checked: set[Precision] = set()

    def __getitem__(self, precision: Precision) -> bytes:
        """The graph of a precision.

        Raises:
            KeyError: there is none.
            BundleError: no runtime may be given it.
        """
        graph = self._graphs[precision]
        if precision not in self._checked:
            check_graph(graph, self._card)
            self._checked.add(precision)
        return graph

    def __iter__(self) -> Iterator[Precision]:
        return iter(self._graphs)

    def __len__(self) -> int:
        return len(self._graphs)

    def __contains__(self, precision: object) -> bool:
        return precision in self._graphs


def open_bundle(name_or_path: str | Path) -> Bundle:
    """The verified bundle of that name (packaged, such as "demo") or at that path.

    Raises:
        BundleError: it does not exist, a byte differs from SHA256SUMS, a file is unlisted or missing, or its content
            cannot be trusted by this version.
    """
    return parsed_bundle(bundle_contents(name_or_path))


def parsed_bundle(contents: Contents, *, lazily: bool = False) -> Bundle:
    """The bundle of these verified files.

    Args:
        contents: from `bundle_contents`.
        lazily: each graph is checked when its bytes are first asked for, and the weights when a network is made of
            them: a run does not wait for what it does not use.

    Raises:
        BundleError: their content cannot be trusted by this version; lazily, that of a graph or of the weights is
            raised later.
    """
    files = contents.files
    if foreign := sorted(files.keys() - {*REQUIRED, *OPTIONAL, *GRAPHS}):
        raise foreign_file(contents.name, foreign[0])
    if missing := [name for name in REQUIRED if name not in files]:
        raise BundleError(f"Bundle {contents.name} has no {missing[0]}. Export the bundle again.")
    card = parse_card(files["card.json"])
    graphs = {precision: files[name] for name, precision in GRAPHS.items() if name in files}
    if "fp32" not in graphs:
        raise BundleError(f"Bundle {contents.name}: model.fp32.onnx is missing. Export the bundle again.")
    checked = CheckedGraphs(graphs, card)
    weights = files.get("weights.safetensors")
    if not lazily:
        dict(checked)
        if weights is not None:
            finite_tensors(weights, "weights.safetensors")
    try:
        parity = tuple(ParityRow.model_validate(row) for row in json.loads(files["parity.json"])["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError("parity.json cannot be read. Export the bundle again.") from error
    return Bundle(
        name=contents.name,
        digest=contents.digest,
        card=card,
        graphs=checked,
        head=_head(files.get("head.safetensors"), card),
        golden=_golden(files["golden.npz"], card),
        parity=parity,
        weights=weights,
    )


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
