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
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, UsageError
from mminfer_export.batches import MIXED, batches_of
from mminfer_export.checked_bundle import Model, Reference, require_new, write_checked_bundle
from mminfer_export.external_data import ONNX_BYTES_MAX, with_data_inside
from mminfer_export.interface import TO_NCHW, Interface, interface_of, with_float32_outputs, without_unused
from mminfer_export.normalised_once import check_normalised_once
from mminfer_export.run_onnx import load_onnx
from mminfer_export.sample_tiles import Samples
from mminfer_export.scores import Kind, Seen, check_scores, kind_of, probabilities, said_by
from mminfer_export.varied_tiles import varied_scores
from mminfer_export.wrap_graph import wrapped

ScoresOption = Literal["auto", "logits", "probabilities"]


@dataclass(frozen=True)
class Answers:
    """What the model itself gives for the sample tiles: scores (N, columns), and the card's other outputs."""

    scores: NDArray[np.float32]
    others: Mapping[str, NDArray[Any]]


def write_from_onnx(
    folder: Path, content: bytes, card: ModelCard, *, samples: Samples, scores: ScoresOption = "auto"
) -> Path:
    """Return `folder`, which now holds the bundle.

    Args:
        folder: that does not exist yet.
        content: the ONNX file. Its one input is float32 (N, 3, H, W) or (N, H, W, 3), which gets (x / 255 − mean) / std
            with the card's mean and std, or uint8 (N, H, W, 3), to which nothing is added.
        card: `outputs` names the file's outputs other than the classes' scores.
        samples: tiles on which engines are compared with the file as it was given.
        scores: what the file gives; "auto": what its last operators say.

    Raises:
        BundleError: the file keeps data elsewhere, uses another domain, or has another interface than the card says.
        UsageError: card, `scores` and file contradict each other, or "auto" is not enough.
        ParityError: an engine gives other probabilities than the file.
        OutputError: the folder exists, or cannot be written.
    """
    require_new(folder)
    model = checked_model(content)
    found = interface_of(model, card)
    answers = model_answers(model, found, card, samples.tiles)
    said = said_by(found.ending, _option) if scores == "auto" else scores
    kind = kind_of(answers.scores, len(card.classes), said)
    check_scores(seen_of(model, found, card, answers.scores), kind, _option)
    graph = bundle_graph(model, found, card, kind, tiles=samples.tiles)
    outputs = {"probabilities": probabilities(answers.scores, kind), **answers.others}
    reference = Reference(samples.tiles, outputs, "the ONNX file as it was given")
    return write_checked_bundle(folder, Model(card, graph), reference, on=samples.on)


def _option(said: str) -> str:
    return f"--scores {said}"


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file, with the data that it keeps in files beside it.

    Raises:
        UsageError: it cannot be read, or is larger than one ONNX file can be.
        BundleError: its data beside it is missing, elsewhere or incomplete.
    """
    try:
        if path.stat().st_size > ONNX_BYTES_MAX:
            raise UsageError(f"{path.name} is larger than 2 GiB. Export a smaller model.")
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read ({error.strerror}). Give the path of an ONNX file.") from error
    return with_data_inside(content, path.parent)


def checked_model(content: bytes) -> onnx.ModelProto:
    """The model in these bytes, before any runtime has seen them.

    Raises:
        BundleError: it is not one that may be run.
    """
    content = without_unused(content)
    model = self_contained_model(content)
    check_valid(content)
    with_float32_outputs(model)
    return model


def seen_of(model: onnx.ModelProto, found: Interface, card: ModelCard, scores: NDArray[Any]) -> Seen:
    """What is seen of the scores of a file that gives these for the sample tiles."""

    def scores_of(tiles: NDArray[np.uint8], factors: NDArray[np.float32]) -> NDArray[np.float32]:
        return model_answers(model, found, card, tiles, factors).scores

    stretch = found.layout != "uint8-nhwc"
    return Seen(scores, found.ending, lambda: varied_scores(scores_of, card.tile_px, stretch=stretch))


def model_answers(
    model: onnx.ModelProto,
    found: Interface,
    card: ModelCard,
    tiles: NDArray[np.uint8],
    factors: NDArray[np.float32] | None = None,
) -> Answers:
    """The file's own outputs for these tiles, one at a time, normalised here and not in the graph.

    Args:
        model: the file's.
        found: its interface.
        card: its mean and std.
        tiles: uint8 (N, tile_px, tile_px, 3).
        factors: (N,), by which normalised tiles are multiplied, where the file takes float images.

    Raises:
        BundleError: it cannot be run with one tile.
    """
    names = [found.scores, *card.outputs]
    given: NDArray[Any] = tiles if found.layout == "uint8-nhwc" else normalised(tiles, card)
    if factors is not None and found.layout != "uint8-nhwc":
        given = given * factors[:, None, None, None]
    if found.layout == "float-nchw":
        given = np.ascontiguousarray(given.transpose(TO_NCHW))
    run = load_onnx(model.SerializeToString(), names)
    rows = [run({found.input: each[None]}) for each in given]
    if any(values.shape[:1] != (1,) for row in rows for values in row.values()):
        raise BundleError("The ONNX file does not give one row for one tile. Export it with a dynamic batch axis.")
    joined = {name: np.concatenate([row[name] for row in rows]) for name in names}
    scores = joined[found.scores].reshape(len(tiles), -1)
    return Answers(scores, {name: joined[name] for name in card.outputs})


def normalised(tiles: NDArray[np.uint8], card: ModelCard) -> NDArray[np.float32]:
    """Return (tiles / 255 − mean) / std, float32 (N, H, W, 3), for tiles uint8 of that shape."""
    images = tiles.astype(np.float32) / np.float32(255)
    images -= np.array(card.mean, np.float32)
    images /= np.array(card.std, np.float32)
    return images


def bundle_graph(
    model: onnx.ModelProto, found: Interface, card: ModelCard, scores: Kind, *, tiles: NDArray[np.uint8]
) -> bytes:
    """The bundle's graph, for any batch size if the model allows it, else for one tile.

    Raises:
        BundleError: the graph is not one that engines may run.
        UsageError: the model normalises tiles that the card has normalised.
    """
    graph = wrapped(model, found, card, scores, batch=None)
    check_graph(graph, card)
    check_normalised_once(graph)
    batches = batches_of(graph, tiles, ["probabilities", *card.outputs])
    if batches == "mixed" and found.batch is None:
        raise BundleError(MIXED)
    if batches != "open":
        graph = wrapped(model, found, card, scores, batch=1)
        check_graph(graph, card)
    return graph
