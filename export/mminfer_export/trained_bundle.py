"""A network that was just trained → a bundle in memory, to be calibrated, and then a sealed one in every precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.bundle.head import Head
from melanoma_infer.card import ModelCard
from melanoma_infer.errors import ParityError
from melanoma_infer.model.melanoma_net import MelanomaNet, TileOutputs, head_tensors
from mminfer_export.calibrated_net import reference_outputs
from mminfer_export.checked_bundle import Model, Reference, engine_rows, golden_of, require_new, require_parity
from mminfer_export.precisions import Made, Tiles, make_precision, write_with
from mminfer_export.to_onnx import to_onnx

PRECISIONS: tuple[Made, ...] = ("fp16", "int8")


def trained_bundle(net: MelanomaNet, card: ModelCard, tiles: NDArray[np.uint8]) -> Bundle:
    """A float32 bundle in memory, without parity; no engine's tolerance depends on what is still missing in its card.

    Args:
        net: trained.
        card: what its bundle says; with the outputs that the graph shall have.
        tiles: uint8 (N, tile_px, tile_px, 3), of which golden ones are chosen.
    """
    net = net.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    names = names_of(card)
    # With all outputs the graph's names are those of the weights.
    graph = to_onnx(net if names == TileOutputs._fields else _Chosen(net, names), card.tile_px, names)
    check_graph(graph, card)
    head = head_tensors(net)
    return Bundle(
        name=card.name, digest="", card=card, graphs={"fp32": graph}, head=Head.from_tensors(dict(head)),
        golden=golden_of(Model(card, graph, head=head), Reference(tiles, _named(net, tiles, card), "PyTorch")),
        parity=(), weights=save(weights),
    )  # fmt: skip


def seal_trained(
    bundle: Bundle, out: Path, *, checked: Tiles, calibration: Tiles, precisions: Sequence[Made] = PRECISIONS
) -> list[str]:
    """Seal a bundle at `out` in fp32, and in other precisions that are accurate enough; why one is left out.

    Args:
        bundle: from `trained_bundle`, its card complete.
        out: a folder that does not exist yet.
        checked: tiles on which engines are compared: fp32 with PyTorch, other precisions with fp32.
        calibration: tiles that set int8's ranges.
        precisions: to be made besides fp32.

    Raises:
        ParityError: an fp32 engine exceeds the card's tolerance.
        OutputError: `out` exists, or cannot be written.
    """
    require_new(out)
    net = MelanomaNet.from_card(bundle.card).eval()
    net.load_state_dict(_tensors(bundle))
    reference = Reference(checked.pixels, _named(net, checked.pixels, bundle.card), "PyTorch")
    rows = engine_rows(bundle, reference, on=checked.on)
    require_parity(rows, bundle.card, reference.source)
    bundle = replace(bundle, parity=tuple(rows))
    added, left_out = [], []
    for precision in precisions:
        try:
            own = calibration if precision == "int8" else None
            added.append(make_precision(bundle, precision, own, checked))
        except ParityError as error:
            why, _, _ = str(error).partition(" No bundle was written.")  # here one is
            left_out.append(f"The bundle has no {precision}. {why}")
    write_with(bundle, added, out)
    open_bundle(out)
    return left_out


def names_of(card: ModelCard) -> tuple[str, ...]:
    """The graph's outputs in order."""
    return ("probabilities", *card.outputs)


class _Chosen(nn.Module):
    """The network with some of its outputs."""

    def __init__(self, net: MelanomaNet, names: Sequence[str]) -> None:
        super().__init__()
        self.net, self.names = net, names

    def forward(self, tiles: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs by these names, in order."""
        outputs = self.net(tiles)
        return tuple(getattr(outputs, name) for name in self.names)


def _named(net: MelanomaNet, tiles: NDArray[np.uint8], card: ModelCard) -> dict[str, NDArray[np.float32]]:
    return {name: values for name, values in reference_outputs(net, tiles).items() if name in names_of(card)}


def _tensors(bundle: Bundle) -> dict[str, Tensor]:
    from safetensors.torch import load

    assert bundle.weights is not None  # `trained_bundle` puts them in
    return load(bundle.weights)
