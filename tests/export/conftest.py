"""A random network that is small enough for fast tests, made once a session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.bundle.head import Head
from melanoma_infer.model.melanoma_net import MelanomaNet, head_tensors
from mminfer_export.calibrated_net import reference_outputs, spanning_golden
from mminfer_export.phantom_tiles import phantom_tiles
from mminfer_export.quantize import Calibration, calibrate
from mminfer_export.random_bundle import random_card
from mminfer_export.random_net import random_net
from mminfer_export.to_onnx import to_onnx

SEED, WIDTH, TILE_PX = 3, 8, 256


@dataclass(frozen=True)
class SmallNet:
    """The network, its float32 bundle, and tiles that nothing was set on, with what the network says of them."""

    net: MelanomaNet
    bundle: Bundle
    set_on: NDArray[np.uint8]
    tiles: NDArray[np.uint8]
    outputs: dict[str, NDArray[np.float32]]


@pytest.fixture(scope="session")
def small() -> SmallNet:
    """Width 8, tiles of 256 px."""
    card = random_card(SEED, WIDTH).model_copy(update={"tile_px": TILE_PX})
    set_on = phantom_tiles(card, 32, SEED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mminfer_export.random_net.DRAWS", 6)  # a quarter of the time: it may be a rough net
        net = random_net(card, torch.from_numpy(set_on), SEED)
    reference = reference_outputs(net, set_on)
    bundle = Bundle(
        name="small",
        digest="",
        card=card,
        graphs={"fp32": to_onnx(net, TILE_PX)},
        head=Head.from_tensors(dict(head_tensors(net))),
        golden=spanning_golden(net, set_on, reference),
        parity=(),
    )
    tiles = phantom_tiles(card, 8, 100)
    return SmallNet(net, bundle, set_on, tiles, reference_outputs(net, tiles))


@pytest.fixture(scope="session")
def calibration(small: SmallNet) -> Calibration:
    """For int8, of the tiles that the network is set on."""
    return calibrate(small.bundle.graphs["fp32"], small.set_on[:12])
