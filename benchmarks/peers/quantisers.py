"""Compares int8 quantisation by ONNX Runtime, NNCF and mminfer: same float32 graph, same tiles, all run by OpenVINO.

``python benchmarks/peers/quantisers.py BUNDLE`` installs NNCF in its own virtual environment (0.5 GB, no PyTorch), and
writes results/quantisers.csv. Each tool quantises the same convolutions and residual Adds, with its default choice of
ranges and biases, and keeps no layer in float. ONNX Runtime has two rows: quantising inputs and outputs of convolutions
(its default), and inputs only. NNCF has two rows: as it writes its file, with uint8 for values that are never negative,
and with int8 throughout, because TensorRT-RTX reads nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.numpy_helper import from_array, to_array

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.bundle.graph_edit import drop_unused, fold_reshaped, name_nodes, sort_topologically, store_constants
from melanoma_infer.engines import load_engine, quiet
from melanoma_infer.engines.base import Engine, Outputs
from melanoma_infer.errors import BundleError, EngineUnavailableError
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.verification.differences import differences
from mminfer_export.backbone import QUANTIZERS, Backbone
from mminfer_export.bias_correction import correct_bias
from mminfer_export.check_quantized import check_quantized
from mminfer_export.precisions import calibration_tiles, check_tiles, reference_outputs
from mminfer_export.quantize import LEVELS, calibrate, quantize
from mminfer_proofs.rows import write_rows

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "quantisers.csv"
VENVS = HERE.parents[1] / "build" / "peers"
NNCF = ["nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0"]
ROUNDS = 5
SIGNED = {"ActivationSymmetric": True, "QuantizeBias": False}
"""For ONNX Runtime: zero points of 0, and float biases, because TensorRT-RTX refuses int32 after a DequantizeLinear."""
INPUTS_ONLY = {"OpTypesToExcludeOutputQuantization": ["Conv", "Add"]}
"""Without this ONNX Runtime quantises before each ReLU and again after it."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Quantised:
    """An int8 graph, the tool that made it, and how many seconds that took."""

    quantiser: str
    version: str
    graph: bytes
    seconds: float


@dataclass(frozen=True)
class Row:
    """One quantiser: how far its graph on OpenVINO is from the float32 reference, and what else can run it.

    `accepted` is "yes" if the graph follows the rules for any bundle, and `portable` if it follows those for int8 on
    every engine; otherwise "no" and the first broken rule. Figures are NaN if OpenVINO does not run the graph.
    """

    quantiser: str
    version: str
    bundle: str
    threads: int
    p999_dp: float
    mean_dp: float
    max_dp: float
    features_rms: float | None
    """None if the model has no features."""
    portable: str
    accepted: str
    tiles_per_s: float
    """Throughput on OpenVINO: the median of ROUNDS rounds, in which all take turns."""
    seconds: float
    """Time to quantise."""
    bytes: int


def by_mminfer(content: bytes, tiles: Pixels) -> Quantised:
    """The quantisation of mminfer, with every layer of the backbone in int8."""
    started = perf_counter()
    calibrated = calibrate(content, tiles)
    graph = correct_bias(quantize(calibrated), calibrated.model, tiles)
    return Quantised("mminfer", version("mminfer"), graph, perf_counter() - started)


def by_onnxruntime(content: bytes, tiles: Pixels, *, inputs_only: bool = False) -> Quantised:
    """ONNX Runtime's static quantisation, symmetric and int8, as its documentation recommends for TensorRT."""
    release = quiet.onnxruntime().__version__
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = prepared(content)
    with TemporaryDirectory() as folder:
        before, after = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        started = perf_counter()
        quant_pre_process(model, before, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            before,
            after,
            _Reader(tiles),
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=quantised_nodes(model),
            extra_options=SIGNED | (INPUTS_ONLY if inputs_only else {}),
        )
        name = "onnxruntime, inputs only" if inputs_only else "onnxruntime"
        return Quantised(name, release, after.read_bytes(), perf_counter() - started)


def by_nncf(content: bytes, tiles: Pixels, venvs: Path) -> Quantised:
    """NNCF's post-training quantisation, in its own process; the seconds are those of its call only.

    Raises:
        subprocess.CalledProcessError: it failed; its output has the reason.
    """
    model, python = prepared(content), python_of_nncf(venvs)
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("fp32.onnx", "tiles.npy", "int8.onnx", "names.json")]
        onnx.save(model, paths[0])
        np.save(paths[1], tiles)
        paths[3].write_text(json.dumps(quantised_nodes(model)))
        command = [python, str(HERE / "with_nncf.py"), *map(str, paths)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        return Quantised("nncf", graph=paths[2].read_bytes(), **json.loads(answer))


def python_of_nncf(venvs: Path) -> str:
    """The Python of NNCF's virtual environment, which is created if it does not exist."""
    python = venvs.resolve() / "nncf" / "bin" / "python"
    if not python.is_file():
        venv.create(venvs / "nncf", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *NNCF], check=True)
    return str(python)


def prepared(content: bytes) -> onnx.ModelProto:
    """The graph as `calibrate` gets it: nodes named and sorted, weights stored in the form in which they are used."""
    model = onnx.load_model_from_string(content)
    for change in (name_nodes, sort_topologically, store_constants, fold_reshaped):
        change(model.graph)
    return model


def quantised_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the backbone's convolutions and residual Adds."""
    backbone = Backbone(model.graph)
    return [*(node.name for node in backbone.convolutions), *backbone.skips()]


class _Reader:
    """Tiles (N, tile_px, tile_px, 3) one by one, in the interface that ONNX Runtime expects."""

    def __init__(self, tiles: Pixels) -> None:
        self._left = iter(tiles)

    def get_next(self) -> dict[str, Pixels] | None:
        """The next tile, or None at the end."""
        tile = next(self._left, None)
        return None if tile is None else {"tiles": tile[None]}


def int8_throughout(content: bytes) -> bytes:
    """The graph with every uint8 value as int8 with a zero point of 0: the same range, with steps about twice as wide.

    Raises:
        ValueError: a stored tensor is uint8, which is not supported.
    """
    model = onnx.load_model_from_string(content)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in QUANTIZERS and stored[node.input[2]].data_type == TensorProto.UINT8:
            if node.op_type == "DequantizeLinear" and node.input[0] in stored:
                raise ValueError(f"{node.input[0]!r} is stored as uint8.")
            scale, zero = (to_array(stored[name]) for name in node.input[1:])
            names = [f"{node.output[0]}.{part}" for part in ("scale", "zero")]
            values = (signed_scale(scale, zero), np.zeros(zero.shape, np.int8))
            model.graph.initializer.extend(from_array(*pair) for pair in zip(values, names, strict=True))
            node.input[1], node.input[2] = names
    drop_unused(model.graph)
    model.graph.ClearField("value_info")
    return bytes(model.SerializeToString(deterministic=True))


def signed_scale(scale: NDArray[Any], zero: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The scale with which int8 covers the range of uint8 with this scale and zero point."""
    farthest = np.maximum(zero, 255 - zero.astype(np.int32))
    return (scale * farthest / LEVELS).astype(np.float32)


def rows_of(bundle: Bundle, made: Sequence[Quantised]) -> list[Row]:
    """A row for each graph, compared on drawn tiles that were not used for calibration."""
    tiles = check_tiles(bundle.card).pixels
    reference = reference_outputs(bundle, tiles)
    engines = [openvino_of(bundle, each.graph) for each in made]
    rates = tiles_per_s(engines, tiles)
    return [
        Row(
            quantiser=each.quantiser,
            version=each.version,
            bundle=bundle.name,
            threads=available_cores(),
            **figures(bundle, engine, tiles, reference),
            portable=kept(check_quantized, onnx.load_model_from_string(each.graph)),
            accepted=kept(check_graph, each.graph, bundle.card),
            tiles_per_s=rate,
            seconds=each.seconds,
            bytes=len(each.graph),
        )
        for each, engine, rate in zip(made, engines, rates, strict=True)
    ]


def openvino_of(bundle: Bundle, graph: bytes) -> Engine | None:
    """OpenVINO with this int8 graph, or None if it cannot compile it."""
    changed = replace(bundle, graphs={**bundle.graphs, "int8": graph})
    try:
        return load_engine(changed, "openvino", precision="int8").engine
    except EngineUnavailableError:
        return None


def tiles_per_s(engines: Sequence[Engine | None], tiles: Pixels) -> list[float]:
    """Each engine's median throughput over rounds in which all take turns, after a warm-up round; NaN for None."""
    seconds = [[_seconds(engine, tiles) for engine in engines] for _ in range(1 + ROUNDS)]
    return [float(rate) for rate in len(tiles) / np.median(seconds[1:], axis=0)]


def _seconds(engine: Engine | None, tiles: Pixels) -> float:
    if engine is None:
        return float("nan")
    started = perf_counter()
    engine.infer(tiles)
    return perf_counter() - started


def figures(bundle: Bundle, engine: Engine | None, tiles: Pixels, reference: Outputs) -> dict[str, float | None]:
    """The engine's differences from the reference for a row; NaN for None."""
    names = ("p999_dp", "mean_dp", "max_dp", "features_rms")
    if engine is None:
        return dict.fromkeys(names, float("nan"))
    seen = differences(bundle, reference, engine.infer(tiles))
    return {name: getattr(seen, name) for name in names}


def kept(check: Callable[..., None], *given: Any) -> str:
    """Return "yes" if the check passes, otherwise "no" and the broken rule."""
    try:
        check(*given)
    except BundleError as error:
        return f"no: {error}"
    return "yes"


def main() -> None:
    """Quantise with every tool and compare; print and save the rows."""
    parser = argparse.ArgumentParser(description="Compare int8 by mminfer, ONNX Runtime and NNCF on one bundle.")
    parser.add_argument("bundle", help="preferably a wide one, such as `bundle create … --random 7 --width 64`")
    parser.add_argument("--venvs", type=Path, default=VENVS, help="folder for NNCF's virtual environment")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    content, tiles = bundle.graphs["fp32"], calibration_tiles(bundle.card).pixels
    nncf = by_nncf(content, tiles, given.venvs)
    signed = replace(nncf, quantiser="nncf, int8 throughout", graph=int8_throughout(nncf.graph))
    ort = [by_onnxruntime(content, tiles, inputs_only=alone) for alone in (False, True)]
    rows = rows_of(bundle, [by_mminfer(content, tiles), *ort, nncf, signed])
    for row in rows:
        print(
            f"{row.quantiser:24} p99.9 |Δp| {row.p999_dp:.1e}  mean {row.mean_dp:.1e}  max {row.max_dp:.1e}  "
            f"{row.tiles_per_s:6.2f} tiles/s  {row.seconds:6.1f} s  {row.bytes / 1e6:5.1f} MB  "
            f"portable {row.portable}, accepted {row.accepted}"
        )
    write_rows(RESULTS, rows)


if __name__ == "__main__":
    main()
