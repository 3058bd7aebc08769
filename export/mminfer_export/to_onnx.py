"""A network in PyTorch → one ONNX graph that OpenVINO, ONNX Runtime and TensorRT-RTX read."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from onnx.shape_inference import infer_shapes
from torch import nn

from melanoma_infer.errors import BundleError
from melanoma_infer.model.melanoma_net import TileOutputs
from mminfer_export.cast_first import cast_first
from mminfer_export.wrap_graph import forget_origin

OPSET = 18


def to_onnx(
    net: nn.Module, tile_px: int, outputs: Sequence[str] = TileOutputs._fields, *, batch: int | None = None
) -> bytes:
    """Return the network as a float32 ONNX file.

    Input `tiles`, uint8 (batch, tile_px, tile_px, 3), cast first; outputs named as given, those of our own
    network by default. Only operators of the default domain, no local functions, no data outside the file, nothing that
    tells where it was made.

    Args:
        net: from tiles to the outputs.
        tile_px: side of a tile.
        outputs: their names.
        batch: None for any number of tiles, or the number that the graph is fixed to.

    Raises:
        BundleError: the exported graph is not one that every engine reads.
    """
    example = torch.zeros(batch or 2, tile_px, tile_px, 3, dtype=torch.uint8)
    with _quietly():
        program = torch.onnx.export(
            net.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["tiles"],
            output_names=list(outputs),
            dynamic_shapes=None if batch else ({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise BundleError("PyTorch exported nothing. Install the versions that the extra `export` names.")
    model = program.model_proto
    forget_origin(model)
    cast_first(model.graph)
    onnx.checker.check_model(infer_shapes(model, strict_mode=True))
    foreign = {node.domain for node in model.graph.node} | {opset.domain for opset in model.opset_import}
    if foreign - {"", "ai.onnx"} or model.functions:
        raise BundleError(f"The graph uses more than plain ONNX operators ({sorted(foreign)}); no engine reads that.")
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quietly() -> Iterator[None]:
    """Within it, the exporter says nothing about its own internals; what matters of its work is checked afterwards."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
