"""Writes a bundle of our own network; demo and random bundles share this."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.bundle.head import Head
from melanoma_infer.card import Threshold
from melanoma_infer.model.melanoma_net import MelanomaNet, head_tensors
from mminfer_export.calibrated_net import measured_cam_scale, reference_outputs, spanning_golden
from mminfer_export.parity import measured_parity
from mminfer_export.precisions import Made, make_precision, write_with
from mminfer_export.to_onnx import to_onnx

PRECISIONS: tuple[Made, ...] = ("fp16", "int8")


def write_net(out: Path, net: MelanomaNet, tiles: NDArray[np.uint8], threshold: Threshold | None) -> Path:
    """Return `out`, which now holds the network in fp32, fp16 and int8.

    Args:
        out: a folder that does not exist yet.
        net: float32, with its card; `cam_scale` is measured.
        tiles: uint8 (N, tile_px, tile_px, 3), on which the outputs span their ranges; golden ones are chosen of them.
        threshold: the card's.

    Raises:
        OutputError: `out` exists, or cannot be written.
        ParityError: a precision exceeds its tolerance.
    """
    reference = reference_outputs(net, tiles)
    card = net.card.model_copy(update={"cam_scale": measured_cam_scale(reference), "threshold": threshold})
    bundle = Bundle(
        name=card.name,
        digest="",
        card=card,
        graphs={"fp32": to_onnx(net, card.tile_px)},
        head=Head.from_tensors(dict(head_tensors(net))),
        golden=spanning_golden(net, tiles, reference),
        parity=(),
        weights=save({name: value.numpy() for name, value in net.state_dict().items()}),
    )
    bundle = replace(bundle, parity=tuple(measured_parity(bundle, reference, tiles)))
    return write_with(bundle, [make_precision(bundle, precision) for precision in PRECISIONS], out)
