"""Whether a graph gives each tile of a batch the numbers that it gives the tile alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.errors import BundleError
from melanoma_infer.tolerances import DEFAULT_TOLERANCES
from mminfer_export.run_onnx import load_onnx

Batches = Literal["open", "single", "mixed"]
"""Any number of tiles, each computed alone; one tile at a time; a tile's numbers depend on the others."""
MIXED = (
    "The answer for a tile depends on the other tiles of its batch, so no number would be certain. Let the model "
    "compute each tile alone: batch statistics, for example, need model.eval() before the export, and a file with "
    "dynamic quantization must be exported in float32."
)
TILES_MAX = 4
RELATIVE = 1e-3
"""Of logarithms of probabilities and other outputs: a batch adds up in another order, which changes the last digits."""
LEAST = 1e-30
"""Where a softmax is almost 1, only the logarithm of its smallest probability shows a change."""


def batches_of(graph: bytes, tiles: NDArray[np.uint8], names: Sequence[str]) -> Batches:
    """What the graph makes of two tiles at once. They are different ones: equal tiles have equal statistics.

    Args:
        graph: with an open batch size.
        tiles: uint8 (N, tile_px, tile_px, 3), N ≥ 1.
        names: of its outputs.
    """
    # A negative at each end, so that even one sample gives two different tiles.
    chosen = tiles[:TILES_MAX]
    row = np.concatenate([255 - chosen[:1], chosen, 255 - chosen[-1:]])
    try:
        run = load_onnx(graph, names)
        alone = [run({"tiles": tile[None]}) for tile in row]
        together = [run({"tiles": np.stack(pair)}) for pair in pairwise(row)]
    except BundleError:
        return "single"
    if any(len(values) != 2 for answer in together for values in answer.values()):
        return "single"
    apart = [{name: np.concatenate([one[name], two[name]]) for name in names} for one, two in pairwise(alone)]
    for paired, single in zip(together, apart, strict=True):
        one, two = (each["probabilities"].astype(np.float64) for each in (paired, single))
        # Not written as "above the tolerance": a NaN must fail.
        if not np.abs(one - two).max() <= DEFAULT_TOLERANCES["fp32"].dp:
            return "mixed"
        pairs = [(np.log(np.maximum(one, LEAST)), np.log(np.maximum(two, LEAST)))]
        pairs += [(paired[name], single[name]) for name in names if name != "probabilities"]
        if not all(np.allclose(*pair, rtol=RELATIVE, atol=RELATIVE) for pair in pairs):
            return "mixed"
    return "open"
