"""The whole network: tile → probabilities, depth, attention, class activation maps, features (paper Eq. 1–4).

With v the global average of the attended map, the classifier (Eq. 4, extended to the 128 and 64 neurons of the text) is

    h1 = ReLU(W1 [v; depth; patient] + b1),  h2 = ReLU(W2·h1 + b2),  p = softmax(W3·h2 + b3)

and W1 is stored in three parts. The products with v and depth are summed in the graph as `features`; the product with
the patient is added on the host (`melanoma_infer.bundle.head`), so patient data never enters the graph.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from melanoma_infer.bundle.head import TENSORS
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import BundleError, UsageError
from melanoma_infer.model.attention import SpatialAttention
from melanoma_infer.model.depth import DepthModule
from melanoma_infer.model.resnet50 import ResNet50Backbone
from melanoma_infer.patients.patient import Patient, one_hot
from mminfer_kernels import reference

FEATURES = 128
MIDDLE = 64
EXCLUDED = -1e4
"""Added to a logit to exclude it from a softmax: fits fp16, and is finite, as graphs with infinities are refused."""


class TileOutputs(NamedTuple):
    """The graph's outputs in order, all float, for N tiles, K classes and maps of h × w."""

    probabilities: Tensor
    """(N, K), for an unknown patient."""
    depth_mm: Tensor
    """(N,)."""
    attention: Tensor
    """(N, h, w), in [0, 1]."""
    cam: Tensor
    """(N, 3, h, w), signed: what each position adds to the log-odds of lesion, malignant, outcome; unknown patient."""
    features: Tensor
    """(N, F): W1v·v + W1d·depth."""


class LogOdds(NamedTuple):
    """Two groups of classes, with log-odds log Σ exp z[favoured] − log Σ exp z[others] for logits z."""

    favoured: tuple[int, ...]
    others: tuple[int, ...]


def log_odds(card: ModelCard) -> tuple[LogOdds, LogOdds, LogOdds]:
    """The log-odds that the three maps explain: lesion, malignant, outcome.

    All three follow the roles that the card gives its classes. Without an outcome, or if all malignant classes have it,
    there is nothing to compare: the third is every class against every class, whose map is zero.
    """
    every, lesion = tuple(range(len(card.classes))), card.lesion_columns
    malignant, outcome = card.malignant_columns, card.outcome_columns
    spared = tuple(k for k in malignant if k not in outcome)
    return (
        LogOdds(lesion, tuple(k for k in every if k not in lesion)),
        LogOdds(malignant, tuple(k for k in every if k not in malignant)),
        LogOdds(outcome, spared) if outcome and spared else LogOdds(every, every),
    )


class MelanomaNet(nn.Module):
    """The network for a card's classes, roles, patient fields, tile size and normalisation.

    Parameters: `backbone`, `attention`, `depth`; w1_image (F, C), w1_depth (F,), w1_patient (F, P), b1 (F,);
    w2 (M, F), b2 (M,); w3 (K, M), b3 (K,), with F = 128, M = 64, C = 32·width.
    """

    mean: Tensor
    std: Tensor
    unknown: Tensor
    groups: Tensor

    def __init__(self, card: ModelCard, width: int) -> None:
        """Build the network with random weights.

        Raises:
            UsageError: the card's tile_px does not fit the depth module.
        """
        super().__init__()
        self.card = card
        self.backbone = ResNet50Backbone(width)
        self.attention = SpatialAttention()
        self.depth = DepthModule(card.tile_px)
        classes, image = len(card.classes), self.backbone.channels_out
        inputs = image + 1 + card.patient_columns
        self.w1_image = _weight(FEATURES, image, inputs=inputs)
        self.w1_depth = _weight(FEATURES, inputs=inputs)
        self.w1_patient = _weight(FEATURES, card.patient_columns, inputs=inputs)
        self.b1 = nn.Parameter(torch.zeros(FEATURES))
        self.w2 = _weight(MIDDLE, FEATURES, inputs=FEATURES)
        self.b2 = nn.Parameter(torch.zeros(MIDDLE))
        self.w3 = _weight(classes, MIDDLE, inputs=MIDDLE)
        self.b3 = nn.Parameter(torch.zeros(classes))
        # These are in the card, so they are not saved with the weights.
        self._constant("mean", torch.tensor(card.mean))
        self._constant("std", torch.tensor(card.std))
        self._constant("unknown", torch.from_numpy(one_hot(Patient(), card.patient_fields)).float())
        odds = log_odds(card)
        # Masks (6, K) to add before a softmax: three favoured groups, then three others; 0 inside, EXCLUDED outside.
        groups = torch.full((2 * len(odds), classes), EXCLUDED)
        for row, group in enumerate([*(o.favoured for o in odds), *(o.others for o in odds)]):
            groups[row, list(group)] = 0.0
        self._constant("groups", groups)

    @classmethod
    def from_card(cls, card: ModelCard) -> Self:
        """The network that a bundle's card describes, still with random weights.

        Raises:
            BundleError: the card has no `network`, or its tile_px does not fit the network.
        """
        if card.network is None:
            raise BundleError("The card has no `network`: this is not our network. Use an engine that reads ONNX.")
        try:
            return cls(card, card.network.width)
        except UsageError as error:
            raise BundleError(f"The network that the card describes cannot be built. {error}") from error

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def forward(self, tiles: Tensor) -> TileOutputs:
        """Return all outputs for tiles uint8 (N, tile_px, tile_px, 3)."""
        images = self.normalised(tiles)
        return self.tail(self.backbone(images), self.depth(images))

    def tail(self, x: Tensor, depth_mm: Tensor) -> TileOutputs:
        """Return all outputs for the backbone's feature map x (N, C, h, w) and depth (N,) in mm."""
        classifier = reference.Classifier(
            depth_mm, self.w1_depth, self.offset(), self.w2, self.b2, self.w3, self.b3, self.groups
        )
        if x.is_cuda and not self.attention.steps_are_needed(x):
            return self._attended_tail(x, classifier)
        tail = reference.attention_tail(x, self.attention.weight, self.attention.bias, self.w1_image, classifier)
        return TileOutputs(tail.probabilities, depth_mm, tail.attention, tail.cam, tail.features)

    def _attended_tail(self, x: Tensor, classifier: reference.Classifier) -> TileOutputs:
        """Return `tail` by Eq. 1 and 2 as written: the attention's operator, then W1 on the attended map."""
        attended, attention = self.attention(x)
        projected = functional.conv2d(attended, self.w1_image[:, :, None, None])
        classified = reference.classify(projected.mean((2, 3)), classifier)
        height, width = attention.shape[1:]
        per_place = torch.matmul(classified.gradients, projected.flatten(2)).reshape(-1, 3, height, width)
        cam = per_place / (height * width)
        return TileOutputs(classified.probabilities, classifier.depth_mm, attention, cam, classified.features)

    def offset(self) -> Tensor:
        """Return W1p·patient + b1 for an unknown patient, (F,)."""
        return self.b1 + (self.w1_patient @ self.unknown if len(self.unknown) else 0.0)

    def full_forward(self, tiles: Tensor, patient: Tensor, depth_mm: Tensor | None = None) -> Tensor:
        """Return probabilities (N, K) by Eq. 1–4 as written: with the attended map, and W1 on the concatenated vector.

        Slower than `forward` and never exported: it is the reference for testing `forward` and the head on the host.

        Args:
            tiles: uint8, (N, tile_px, tile_px, 3).
            patient: one-hot, (N, P).
            depth_mm: (N,), measured; None to use the module's estimate.
        """
        images = self.normalised(tiles)
        pooled = self.attention(self.backbone(images)).attended.mean((2, 3))
        depth = self.depth(images) if depth_mm is None else depth_mm
        concatenated = torch.cat((pooled, depth[:, None], patient), dim=1)
        w1 = torch.cat((self.w1_image, self.w1_depth[:, None], self.w1_patient), dim=1)
        first = functional.linear(concatenated, w1, self.b1).relu()
        second = functional.linear(first, self.w2, self.b2).relu()
        return functional.linear(second, self.w3, self.b3).softmax(1)

    def normalised(self, tiles: Tensor) -> Tensor:
        """Return (tiles / 255 − mean) / std as (N, 3, H, W)."""
        return reference.normalize_tiles(tiles, self.mean, self.std, self.b1.dtype)


def head_tensors(net: MelanomaNet) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of ``head.safetensors``, which `melanoma_infer.bundle.head.Head` needs."""
    return {name: getattr(net, name).detach().cpu().float().numpy() for name in TENSORS}


def _weight(*shape: int, inputs: int) -> nn.Parameter:
    # He et al. 2015: preserves the variance through a ReLU; `inputs` is that of the whole W1, not of one part.
    return nn.Parameter(torch.randn(shape) * math.sqrt(2 / inputs))
