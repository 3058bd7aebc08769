"""The forward pass of training: Eq. 1–4 with a patient, and parts of it left out for the ablation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from melanoma_infer.card import ModelCard
from melanoma_infer.model.melanoma_net import MelanomaNet


@dataclass(frozen=True)
class Parts:
    """Which parts of the network there are; one that is missing contributes nothing to the forward pass."""

    attention: bool = True
    """False: the feature map is averaged as it is."""
    depth: bool = True
    """False: no depth is computed, and the classifier sees none."""
    patient: bool = True
    """False: the classifier sees no patient, not even an unknown one."""
    classifier: bool = True
    """False: one linear layer in place of the paper's 128 and 64 neurons, as ResNet-50 is used for pictures alone."""

    def __str__(self) -> str:
        names = [each.name for each in fields(self) if getattr(self, each.name) and each.name != "classifier"]
        return " + ".join(["backbone", *names]) + ("" if self.classifier else ", one linear layer")


LADDER = {
    "unimodal": Parts(attention=False, depth=False, patient=False, classifier=False),
    "backbone": Parts(attention=False, depth=False, patient=False),
    "attention": Parts(depth=False, patient=False),
    "depth": Parts(patient=False),
    "patient": Parts(),
}
"""The paper's unimodal CNN, and its network part by part."""


class Predicted(NamedTuple):
    """Logits (N, K), depth (N,) in mm or None, and where a lesion is (N, h, w), as logits, or None."""

    logits: Tensor
    depth_mm: Tensor | None
    lesion_map: Tensor | None = None


class TrainingNet(nn.Module):
    """The network with a patient as input; `net` is what is exported."""

    def __init__(self, card: ModelCard, parts: Parts) -> None:
        """Build it with random weights.

        Raises:
            BundleError: the card has no `network`, or its tile_px does not fit the network.
        """
        super().__init__()
        self.parts = parts
        self.net = MelanomaNet.from_card(card)
        self.linear = None if parts.classifier else nn.Linear(self.net.backbone.channels_out, len(card.classes))

    def forward(
        self,
        tiles: Tensor,
        patients: Tensor,
        kept: Tensor | None = None,
        *,
        measured_mm: Tensor | None = None,
        with_map: bool = False,
    ) -> Predicted:
        """Return logits and depths for tiles uint8 (N, tile_px, tile_px, 3) and one-hot patients (N, P).

        `kept` (N, C) multiplies the C channels of the image features, for dropout. The map, if it is asked for, is the
        graph's class activation map times the number of places: what the whole tile's log-odds of a lesion would gain
        if every place were like this one. `measured_mm` (N,) takes the place of the estimated depth in the classifier,
        except where it is NaN.
        The depth is passed to the classifier without its gradient: the depth module learns millimetres from measured
        thicknesses alone, and no class can bend them. It computes in float32 whatever the rest does: in bfloat16 a
        depth of 2 mm has steps of 0.016 mm.
        """
        net, parts = self.net, self.parts
        images = net.normalised(tiles)
        x = net.backbone(images)
        pooled = (net.attention(x).attended if parts.attention else x).mean((2, 3))
        if kept is not None:
            pooled = pooled * kept
        with torch.autocast(images.device.type, enabled=False):
            depth_mm = net.depth(images) if parts.depth else None
        if self.linear is not None:
            return Predicted(self.linear(pooled), depth_mm)
        lesion_map = self._lesion_map(x, depth_mm) if with_map else None
        first = pooled @ net.w1_image.T + net.b1
        if depth_mm is not None:
            given_mm = depth_mm.detach()
            if measured_mm is not None:
                given_mm = torch.where(measured_mm.isnan(), given_mm, measured_mm)
            first = first + given_mm[:, None] * net.w1_depth
        if parts.patient and patients.shape[1]:
            first = first + patients @ net.w1_patient.T
        second = nn.functional.linear(first.relu(), net.w2, net.b2).relu()
        return Predicted(nn.functional.linear(second, net.w3, net.b3), depth_mm, lesion_map)

    def _lesion_map(self, x: Tensor, depth_mm: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            known_mm = x.new_zeros(len(x), dtype=torch.float32) if depth_mm is None else depth_mm.detach().float()
            lesion = self.net.tail(x.float(), known_mm).cam[:, 0]
        return lesion * lesion[0].numel()

    def depth_of_averages(self, averages: Tensor) -> Tensor:
        """Return depths (N,) for tiles that were averaged over 4×4 px, uint8 (N, tile_px / 4, tile_px / 4, 3)."""
        with torch.autocast(averages.device.type, enabled=False):
            depth_mm: Tensor = self.net.depth.of_averages(self.net.normalised(averages))
        return depth_mm


def seeded_net(card: ModelCard, parts: Parts, seed: int) -> TrainingNet:
    """The network with random weights from a seed, channels last: that is how its kernels are fastest."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TrainingNet(card, parts)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
