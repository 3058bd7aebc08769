"""Quantises the named nodes of a graph to int8 and prints how long that took. Runs in NNCF's virtual environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

sys.modules["openvino_telemetry"] = None  # otherwise NNCF would report to a server

import nncf  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402


def main(model: Path, tiles: Path, quantised: Path, names: Path) -> None:
    """Quantise only the nodes with these names, with the preset PERFORMANCE and otherwise NNCF's defaults."""
    graph = onnx.load(model)
    wanted = set(json.loads(names.read_text()))
    pixels = np.load(tiles)
    started = perf_counter()
    int8 = nncf.quantize(
        graph,
        nncf.Dataset([{"tiles": tile[None]} for tile in pixels]),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(pixels),
        ignored_scope=nncf.IgnoredScope(names=[node.name for node in graph.graph.node if node.name not in wanted]),
    )
    seconds = perf_counter() - started
    onnx.save(int8, quantised)
    print(json.dumps({"version": nncf.__version__.split("+")[0], "seconds": seconds}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
