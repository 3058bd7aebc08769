"""WSInfer's resnet50 from its safetensors: no code is run, because the architecture is known here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError
from melanoma_infer.model.resnet50 import ResNet50Backbone
from melanoma_infer.runtime.plural import plural
from mminfer_export.from_module import write_module
from mminfer_export.sample_tiles import Samples


class ResNet50(ResNet50Backbone):
    """ResNet-50 with its classifier; parameters are named as torchvision and timm name them."""

    def __init__(self, classes: int) -> None:
        super().__init__(width=64)
        self.fc = nn.Linear(self.channels_out, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for normalised images (N, 3, H, W)."""
        logits: Tensor = self.fc(super().forward(images).mean((2, 3)))
        return logits


def fits(path: Path) -> bool:
    """Whether a safetensors file holds the parameters of ResNet50, by their names."""
    from safetensors import SafetensorError, safe_open

    with torch.device("meta"):
        wanted = set(ResNet50(2).state_dict())
    try:
        with safe_open(path, framework="pt") as file:
            held = set(file.keys())
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path.name} is not a safetensors file. Download it again.") from error
    # Files of older PyTorch lack the batch counters, which evaluation does not use.
    return held | {name for name in wanted if name.endswith("num_batches_tracked")} == wanted


def write_resnet50(out: Path, path: Path, card: ModelCard, *, samples: Samples) -> Path:
    """Return `out`, which now holds the bundle of these weights.

    Raises:
        BundleError: the weights do not fit the card's classes.
        ParityError, OutputError: as in `write_bundle`.
    """
    from safetensors.torch import load_file

    weights = load_file(path)
    columns = len(weights["fc.bias"])
    if columns != len(card.classes):
        raise BundleError(
            f"{path.name} has {plural(columns, 'output')}; config.json, {len(card.classes)} classes. Download it again."
        )
    net = ResNet50(columns)
    net.load_state_dict(weights, strict=False)  # `fits` has compared the names
    return write_module(out, net, card=card, output="logits", tiles=samples.tiles)
