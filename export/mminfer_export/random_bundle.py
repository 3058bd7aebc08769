"""A bundle of our network with random weights, in every precision, for benchmarks and parity checks.

Nothing in it is trained, and its card says so. Its outputs span their ranges, so that a broken engine shows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.card import ModelCard, NetworkShape, Threshold
from melanoma_infer.errors import OutputError
from mminfer_export.calibrated_net import malignant_score, reference_outputs
from mminfer_export.phantom_tiles import phantom_tiles
from mminfer_export.random_net import random_net
from mminfer_export.write_net import write_net

TILES = 32
THRESHOLD_TILES, THRESHOLD_SEED = 64, 13
"""Used in addition to the tiles that the weights are set on: with so few, a gap may be chance."""
THRESHOLD_WITHIN = (0.3, 0.7)
THRESHOLD_MARGIN = 0.05


def write_random_bundle(out: Path, seed: int, width: int = 64) -> Path:
    """Return `out`, which now holds a random bundle in fp32, fp16 and int8.

    Args:
        out: a folder that does not exist yet.
        seed: of the weights and of the 32 drawn tiles that they are set on.
        width: channels after the first convolution; 64 is ResNet-50's.

    Raises:
        OutputError: the folder exists, or cannot be written.
        ParityError: a precision exceeds its tolerance; choose another seed.
    """
    if out.exists():
        raise OutputError(f"{out.name} exists. A bundle is never changed: remove it, or choose another name.")
    card = random_card(seed, width)
    tiles = phantom_tiles(card, TILES, seed)
    net = random_net(card, torch.from_numpy(tiles), seed)
    others = phantom_tiles(card, THRESHOLD_TILES, THRESHOLD_SEED)
    probabilities = reference_outputs(net, np.concatenate([tiles, others]))["probabilities"]
    # The threshold is in the widest gap between the tiles' scores: rounding should move few tiles across.
    inside = np.sort(np.clip(np.float64(malignant_score(probabilities, card)), *THRESHOLD_WITHIN))
    gap = int(np.argmax(np.diff(inside)))
    value = round(float(inside[gap] + inside[gap + 1]) / 2, 3)
    threshold = Threshold(
        value=value,
        low=round(value - THRESHOLD_MARGIN, 3),
        high=round(value + THRESHOLD_MARGIN, 3),
        how="not set on data: the model is untrained",
    )
    return write_net(out, net, tiles, threshold)


def random_card(seed: int, width: int) -> ModelCard:
    """The demo's card for a network of this width, without what is measured or set on data."""
    return ModelCard.model_validate(
        open_bundle("demo").card.model_dump(exclude={"threshold", "cam_scale", "region_threshold", "tolerances"})
        | {
            "name": f"random-{seed}-width-{width}",
            "version": "1",
            "trained": False,
            "intended_use": "To measure and to test engines. Its numbers mean nothing for any tissue.",
            "training_data": f"None: the weights are random. Ranges were set on {TILES} drawn tiles.",
            "limits": "It has not been trained. Every verdict is indeterminate.",
            "network": NetworkShape(width=width),
        }
    )
