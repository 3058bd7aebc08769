"""A user's ONNX file and a card → a bundle. Missing normalisation or softmax is added as plain nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from melanoma_infer.bundle.graph_checks import check_graph, check_valid, self_contained_model
from melanoma_infer.bundle.head import softmax
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, UsageError
from melanoma_infer.tolerances import DEFAULT_TOLERANCES
from mminfer_export.checked_bundle import Model, Reference, are_probabilities, require_new, write_checked_bundle
from mminfer_export.run_onnx import load_onnx
from mminfer_export.sample_tiles import Samples
from mminfer_export.wrap_graph import Interface, Scores, interface_of, wrapped

ScoresOption = Literal["auto", "logits", "probabilities"]
ONNX_BYTES_MAX = (1 << 31) - 1
"""Protobuf's own limit: a larger model keeps its data in other files, which are refused."""


@dataclass(frozen=True)
class Answers:
    """What the model itself gives for the sample tiles: scores (N, K or 1), and the card's other outputs."""

    scores: NDArray[np.float32]
    others: Mapping[str, NDArray[Any]]


def write_from_onnx(
    folder: Path, content: bytes, card: ModelCard, *, samples: Samples, scores: ScoresOption = "auto"
) -> Path:
    """Return `folder`, which now holds the bundle.

    Args:
        folder: that does not exist yet.
        content: the ONNX file. Its one input is float32 (N, 3, H, W), which gets (x / 255 − mean) / std with the card's
            mean and std, or uint8 (N, H, W, 3), to which nothing is added.
        card: `outputs` names the file's outputs other than the classes' scores.
        samples: tiles on which engines are compared with the file as it was given.
        scores: what the file gives; "auto": probabilities when its last node is a Softmax, else logits.

    Raises:
        BundleError: the file keeps data elsewhere, uses another domain, or has another interface than the card says.
        UsageError: card and file contradict each other.
        ParityError: an engine gives other probabilities than the file.
        OutputError: the folder exists, or cannot be written.
    """
    require_new(folder)
    model = checked_model(content)
    found = interface_of(model, card)
    answers = model_answers(content, found, card, samples.tiles)
    kind = kind_of_scores(answers.scores, found, card, scores)
    graph = bundle_graph(model, found, card, kind, tile=samples.tiles[0])
    outputs = {"probabilities": probabilities(answers.scores, kind), **answers.others}
    reference = Reference(samples.tiles, outputs, "the ONNX file as it was given")
    return write_checked_bundle(folder, Model(card, graph), reference, on=samples.on)


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        UsageError: it cannot be read, or is larger than one ONNX file can be.
    """
    try:
        if path.stat().st_size > ONNX_BYTES_MAX:
            raise UsageError(f"{path.name} is larger than 2 GiB. Export a smaller model.")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read ({error.strerror}). Give the path of an ONNX file.") from error


def checked_model(content: bytes) -> onnx.ModelProto:
    """The model in these bytes, before any runtime has seen them.

    Raises:
        BundleError: it is not one that may be run.
    """
    model = self_contained_model(content)
    check_valid(content)
    return model


def model_answers(content: bytes, found: Interface, card: ModelCard, tiles: NDArray[np.uint8]) -> Answers:
    """The file's own outputs for these tiles, one at a time, normalised here and not in the graph.

    Raises:
        BundleError: it cannot be run with one tile.
    """
    names = [found.scores, *card.outputs]
    given = tiles if found.layout == "uint8-nhwc" else normalised(tiles, card)
    run = load_onnx(content, names)
    rows = [run({found.input: each[None]}) for each in given]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in names}
    if any(len(values) != len(tiles) for values in joined.values()):
        raise BundleError("The ONNX file does not give one row for one tile. Export it with a dynamic batch axis.")
    return Answers(joined[found.scores], {name: joined[name] for name in card.outputs})


def normalised(tiles: NDArray[np.uint8], card: ModelCard) -> NDArray[np.float32]:
    """Return (tiles / 255 − mean) / std, float32 (N, 3, H, W), for tiles (N, H, W, 3)."""
    images = tiles.astype(np.float32) / np.float32(255)
    images -= np.array(card.mean, np.float32)
    images /= np.array(card.std, np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def kind_of_scores(values: NDArray[np.float32], found: Interface, card: ModelCard, asked: ScoresOption) -> Scores:
    """What the model's scores (N, K) are.

    Raises:
        UsageError: their number is not the classes', or what they look like contradicts what is known of them.
    """
    if values.ndim == 2 and values.shape[1] == 1 and len(card.classes) == 2 and asked != "probabilities":
        return "one-logit"
    if values.ndim != 2 or values.shape[1] != len(card.classes):
        raise UsageError(
            f"The ONNX file gives scores {['N', *values.shape[1:]]}; the card names {len(card.classes)} classes. "
            "Correct the card's `classes`."
        )
    if asked == "auto" and not found.ends_with_softmax and are_probabilities(values):
        raise UsageError(
            "The ONNX file's scores look like probabilities, but it does not end with a Softmax. Say which they are: "
            "--scores probabilities, or --scores logits."
        )
    if asked == "auto":
        return "probabilities" if found.ends_with_softmax else "logits"
    return asked


def bundle_graph(
    model: onnx.ModelProto, found: Interface, card: ModelCard, scores: Scores, *, tile: NDArray[np.uint8]
) -> bytes:
    """The bundle's graph, for any batch size if the model allows it, else for one tile.

    Raises:
        BundleError: the graph is not one that engines may run.
    """
    graph = wrapped(model, found, card, scores, batch=None)
    check_graph(graph, card)
    try:
        run = load_onnx(graph, ["probabilities"])
        one, two = (run({"tiles": np.stack([tile] * count)})["probabilities"] for count in (1, 2))
        twice = two.shape == (2, one.shape[1]) and np.abs(two - one).max() <= DEFAULT_TOLERANCES["fp32"].dp
    except BundleError:
        twice = False
    if not twice:
        graph = wrapped(model, found, card, scores, batch=1)
        check_graph(graph, card)
    return graph


def probabilities(scores: NDArray[np.float32], kind: Scores) -> NDArray[np.float32]:
    """Probabilities (N, K) of the model's scores, computed in float64."""
    values: NDArray[np.float64] = scores.astype(np.float64)
    match kind:
        case "logits":
            values = softmax(values)
        case "one-logit":
            values = softmax(np.concatenate([np.zeros_like(values), values], axis=1))
    return values.astype(np.float32)
