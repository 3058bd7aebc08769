"""The last step of every import: engines are compared with the reference, and the bundle is sealed if they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from melanoma_infer.bundle.bundle import GOLDEN_TILES_MAX, Bundle, Golden, ParityRow, open_bundle
from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.bundle.head import Head
from melanoma_infer.card import ModelCard
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.base import first_non_finite
from melanoma_infer.errors import BundleError, EngineUnavailableError, OutputError, ParityError, UsageError
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.tolerances import Precision
from melanoma_infer.verification.differences import differences
from mminfer_export.parity import parity_row
from mminfer_export.scores import are_probabilities
from mminfer_export.seal import seal_bundle

Outputs = Mapping[str, NDArray[Any]]
Tensors = Mapping[str, NDArray[Any]]

ENGINES: tuple[tuple[str, Precision], ...] = (
    ("openvino", "fp32"),
    ("onnxruntime", "fp32"),
    ("torch", "fp32"),
    ("openvino", "bf16"),
)
"""The engines that are compared, if they load; the first loads everywhere."""


@dataclass(frozen=True)
class Model:
    """The content of a bundle: a graph, and for our own network its tensors."""

    card: ModelCard
    graph: bytes
    head: Tensors | None = None
    weights: Tensors | None = None


@dataclass(frozen=True)
class Reference:
    """Tiles uint8 (N, tile_px, tile_px, 3), the outputs (N, …) that are right for them, by name, and their source.

    `source` completes a sentence, for example "the module".
    """

    tiles: NDArray[np.uint8]
    outputs: Outputs
    source: str


def write_checked_bundle(folder: Path, model: Model, reference: Reference, *, on: str) -> Path:
    """Return `folder`, which now holds the bundle: golden tiles, sealed parity, opened once as a user will.

    Args:
        folder: does not exist yet.
        model: the card, the graph and the tensors.
        reference: tiles and the outputs that the engines must give for them.
        on: the tiles in words: "8 drawn tiles".

    Raises:
        BundleError: the graph is not one that engines may run, or the reference holds NaN or infinity.
        UsageError: the reference's outputs are not probabilities of the card's classes.
        ParityError: an fp32 engine exceeds the card's tolerance, or puts a tile on the other side of the threshold.
        OutputError: the folder exists, or cannot be written.
    """
    require_new(folder)
    check_graph(model.graph, model.card)
    if (name := first_non_finite(reference.outputs)) is not None:
        raise BundleError(f"{name} of {reference.source} has NaN or infinity for a sample tile. Correct the model.")
    check_probabilities(reference.outputs["probabilities"], model.card)
    golden = golden_of(model, reference)
    unsealed = Bundle(
        name=model.card.name, digest="", card=model.card, graphs={"fp32": model.graph},
        head=None if model.head is None else Head.from_tensors(dict(model.head)), golden=golden, parity=(),
        weights=None if model.weights is None else save({name: np.asarray(w) for name, w in model.weights.items()}),
    )  # fmt: skip
    parity = engine_rows(unsealed, reference, on=on)
    require_parity(parity, model.card, reference.source)
    seal_bundle(
        folder, card=model.card, graphs={"fp32": model.graph}, golden=golden, parity=parity,
        head=model.head, weights=model.weights,
    )  # fmt: skip
    open_bundle(folder)
    return folder


def require_new(folder: Path) -> None:
    """Raise OutputError if the folder exists; call this before hours of work."""
    if folder.exists():
        raise OutputError(f"{folder.name} exists. A bundle is never changed: remove it, or choose another name.")


def check_probabilities(values: NDArray[Any], card: ModelCard) -> None:
    """Raise UsageError unless these are probabilities (N, K) of the card's classes."""
    if values.ndim != 2 or values.shape[1] != len(card.classes):
        raise UsageError(
            f"The model gives {list(values.shape)}, one row a tile; the card names {len(card.classes)} classes. "
            "Correct `classes`, or let the model return (N, K)."
        )
    if not are_probabilities(values):
        raise UsageError(
            "The model's outputs are not probabilities: each row must be within 0 and 1 and sum to 1. "
            "Say that they are logits, so that a softmax is added."
        )


def golden_of(model: Model, reference: Reference) -> Golden:
    """At most four of the tiles, from the lowest to the highest malignant score, with the reference's outputs.

    With a head, the first patient is unknown, and the others' values differ from each other's.
    """
    score = reference.outputs["probabilities"][:, list(model.card.malignant_columns)].sum(1)
    count = min(GOLDEN_TILES_MAX, len(score))
    chosen = np.argsort(score, kind="stable")[np.linspace(0, len(score) - 1, count).round().astype(int)]
    outputs = {name: np.asarray(values, np.float32)[chosen] for name, values in reference.outputs.items()}
    patients = golden_patients(model.card, count)
    host = None
    if model.head is not None:
        head = Head.from_tensors(dict(model.head))
        rows = zip(outputs["features"], patients, strict=True)
        host = np.stack([head.probabilities(features[None], patient)[0] for features, patient in rows])
    return Golden(reference.tiles[chosen], patients, outputs, host)


def golden_patients(card: ModelCard, count: int) -> NDArray[np.float64]:
    """One-hot vectors (count, P): first the unknown patient, then value i of every field."""
    vectors = np.zeros((count, card.patient_columns))
    vectors[0] = one_hot(Patient(), card.patient_fields)
    for row in range(1, count):
        start = 0
        for field in card.patient_fields:
            vectors[row, start + (row - 1) % len(field.values)] = 1.0
            start += field.columns
    return vectors


def engine_rows(bundle: Bundle, reference: Reference, *, on: str) -> list[ParityRow]:
    """One row for each of ENGINES that loads on this machine.

    Raises:
        EngineUnavailableError: none loads.
    """
    rows, skipped = [], []
    for name, precision in ENGINES:
        try:
            engine = load_engine(bundle, name, precision=precision).engine
            outputs = engine.infer(reference.tiles)
        except EngineUnavailableError as error:
            skipped.append(f"{name} {precision}: {error}")
            continue
        seen = differences(bundle, reference.outputs, outputs, band=bundle.card.tolerance_of(precision).dp)
        rows.append(parity_row(seen, engine.numerics, tiles=len(reference.tiles), on=on))
    if not rows:
        raise EngineUnavailableError("No engine on this machine can run this graph. " + " ".join(skipped))
    return rows


def require_parity(rows: list[ParityRow], card: ModelCard, source: str) -> None:
    """Raise ParityError if an fp32 engine exceeds the card's tolerance, or flips a tile's decision."""
    tolerance = card.tolerance_of("fp32")
    for row in rows:
        # Not written as "above the tolerance": a NaN must fail.
        within = row.max_dp <= tolerance.dp and (row.max_dmm is None or row.max_dmm <= tolerance.dmm)
        if row.precision == "fp32" and not within:
            raise ParityError(
                f"{row.engine} differs from {source} by up to {row.max_dp:.2g} in a probability; {tolerance.dp:g} is "
                "accepted. No bundle was written. Check that the model is in float32, not quantized, and gives a tile "
                f"the same output in every batch. If so, {row.engine} computes one of its operators in another way: "
                "replace that one."
            )
        if row.precision == "fp32" and row.decision_flips:
            raise ParityError(
                f"{row.engine} puts {row.decision_flips} of the sample tiles on the other side of the card's "
                "threshold, though by no more than rounding. No bundle was written. Choose another threshold, "
                "or other tiles."
            )
