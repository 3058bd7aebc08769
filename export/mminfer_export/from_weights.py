"""Weights of our own network (`.safetensors`, or a checkpoint's tensors) and a card → a bundle for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import finite_tensors
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, UsageError
from melanoma_infer.model.melanoma_net import MelanomaNet, TileOutputs, head_tensors
from mminfer_export.calibrated_net import reference_outputs
from mminfer_export.card_toml import card_of
from mminfer_export.checked_bundle import Model, Reference, require_new, write_checked_bundle
from mminfer_export.sample_tiles import Samples
from mminfer_export.to_onnx import to_onnx
from mminfer_export.untrusted import tensors_of_checkpoint

FIRST = "backbone.conv1.weight"
OUTPUTS = tuple(name for name in TileOutputs._fields if name != "probabilities")
PICKLED = (".pt", ".pth", ".ckpt")


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a `.safetensors` file, or of a checkpoint, which a child process reads.

    Raises:
        UsageError: it is neither, or cannot be read.
        BundleError: it is damaged, holds NaN, or holds more than tensors.
    """
    if path.suffix not in (".safetensors", *PICKLED) or not path.is_file():
        raise UsageError(f"{path.name} is no weights file. Give a .safetensors file, or a {', '.join(PICKLED)} one.")
    try:
        content = tensors_of_checkpoint(path) if path.suffix in PICKLED else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read ({error.strerror}). Check its permissions.") from error
    return finite_tensors(content, path.name)


def card_of_weights(values: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> ModelCard:
    """The card of these values, with all of our network's outputs, and the width that the weights tell.

    Raises:
        UsageError: a value is missing, unknown or impossible, or the weights are not our network's.
    """
    if FIRST not in weights or weights[FIRST].ndim != 4:
        raise UsageError(
            f"The weights have no {FIRST}: they are not our network's. For another network, use "
            "mminfer_export.write_bundle, or --onnx."
        )
    told = {"outputs": OUTPUTS, "network": {"width": weights[FIRST].shape[0]}}
    return card_of({**told, **values})


def write_from_weights(folder: Path, weights: Mapping[str, NDArray[Any]], card: ModelCard, *, samples: Samples) -> Path:
    """Return `folder`, which now holds the bundle.

    Args:
        folder: that does not exist yet.
        weights: by the names of `MelanomaNet.state_dict()`.
        card: with `network` and the outputs of our network (`card_of_weights`).
        samples: tiles on which engines are compared with PyTorch.

    Raises:
        BundleError: the weights do not fit the network of the card.
        ParityError: an engine gives other probabilities than PyTorch.
        OutputError: the folder exists, or cannot be written.
    """
    require_new(folder)
    net = MelanomaNet.from_card(card).eval()
    try:
        net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    except RuntimeError as error:
        problem = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise BundleError(
            f"The weights do not fit the network of the card: {problem[:200]} Correct the card's classes, tile_px and "
            "patient_fields, which decide the shapes."
        ) from error
    reference = Reference(samples.tiles, reference_outputs(net, samples.tiles), "PyTorch")
    head = head_tensors(net)
    model = Model(card, to_onnx(net, card.tile_px), head=head, weights=dict(weights))
    return write_checked_bundle(folder, model, reference, on=samples.on)
