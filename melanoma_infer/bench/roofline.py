"""The machine's limits: peak GEMM throughput and copy bandwidth, and what one tile costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.engines import quiet
from melanoma_infer.engines.openvino_engine import HINTS
from melanoma_infer.runtime.cores import available_cores
from melanoma_infer.tolerances import Precision

SIDE = 2048
"""Side of the matrices: their product takes 17 GFLOP, and they do not fit a core's cache."""
COPIED_BYTES = 1 << 28
REPEATS = 3
"""Calls per measurement. The fastest counts, because a limit is what the machine reaches when nothing else runs."""


@dataclass(frozen=True)
class Roofline:
    """The limits of an engine on this machine."""

    gflop_a_tile: float
    """Multiplications and additions of one tile in convolutions and matrix products, in 10⁹."""
    weight_bytes: int
    """Size of the fp32 graph's weights, which every request reads at least once."""
    peak_gflops: dict[Precision, float]
    """Peak GEMM throughput in GFLOP/s by precision, with the same number of threads."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written, per second."""

    def share(self, precision: Precision, tiles_per_s: float) -> float | None:
        """Fraction of the peak GEMM throughput of that precision; None if that was not measured."""
        peak = self.peak_gflops.get(precision)
        return None if peak is None else tiles_per_s * self.gflop_a_tile / peak


class MatrixProducts:
    """Measures peak GEMM throughput: a matrix product in each precision, timed repeatedly, in turns with the engines.

    Args:
        products: for each precision, functions that multiply two matrices (SIDE, SIDE); the fastest counts.
    """

    def __init__(self, products: Mapping[Precision, Sequence[Callable[[], Any]]]) -> None:
        self._products = products
        self.gflops: dict[Precision, float] = dict.fromkeys(products, 0.0)
        """Highest throughput so far, in GFLOP/s."""

    def time(self) -> None:
        """Time each product once more, and keep the highest throughput."""
        for precision, products in self._products.items():
            seconds = min(map(_seconds, products))
            self.gflops[precision] = max(self.gflops[precision], 2 * SIDE**3 / 1e9 / seconds)


def matrix_products(precisions: Iterable[Precision], threads: int) -> MatrixProducts:
    """Matrix products in these precisions by OpenVINO with so many threads.

    In fp32 on all cores NumPy computes one too, because it is sometimes a third faster.
    """
    values = np.random.default_rng(1).uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    products: dict[Precision, list[Callable[[], Any]]] = {
        precision: [partial(_product(precision, threads).infer, [values])] for precision in precisions
    }
    if "fp32" in products and threads == available_cores():
        products["fp32"].append(partial(np.matmul, values, values))
    return MatrixProducts(products)


def roofline(bundle: Bundle, peak_gflops: dict[Precision, float]) -> Roofline:
    """The cost of a tile of this bundle in fp32, with these peaks and the copy bandwidth, which is measured now."""
    model = quiet.openvino().Core().read_model(bundle.graphs["fp32"])
    side = bundle.card.tile_px
    model.reshape({"tiles": [1, side, side, 3]})
    flop = weights = 0
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind == "Constant":
            weights += prod(node.get_output_shape(0)) * 4
        if kind in ("Convolution", "MatMul"):
            out = prod(node.get_output_shape(0))
            shape = list(node.get_input_shape(1 if kind == "Convolution" else 0))
            # A convolution's weight is (out, in, kh, kw); a matrix product sums over its first operand's last axis.
            flop += 2 * out * (prod(shape[1:]) if kind == "Convolution" else shape[-1])
    source = np.ones(COPIED_BYTES, np.uint8)
    target = np.empty_like(source)
    copy_seconds = _seconds(lambda: np.copyto(target, source))
    return Roofline(flop / 1e9, weights, peak_gflops, 2 * COPIED_BYTES / copy_seconds)


def _product(precision: Precision, threads: int) -> Any:
    """An inference request that multiplies its input by a constant matrix."""
    ov = quiet.openvino()
    ops = ov.opset13
    rng = np.random.default_rng(0)
    left = ops.parameter([SIDE, SIDE], np.float32)
    right: Any = ops.constant(rng.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32))
    inputs: list[Any] = [left, right]
    if precision == "int8":
        low, high = (ops.constant(np.float32(edge)) for edge in (-1.0, 127 / 128))
        inputs = [ops.fake_quantize(each, low, high, low, high, 256) for each in inputs]
    model = ov.Model([ops.reduce_max(ops.matmul(*inputs, False, False), np.array([0, 1]))], [left])
    config = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": threads}
    return ov.Core().compile_model(model, "CPU", config).create_infer_request()


def _seconds(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of several calls, after one warm-up call."""
    call()
    seconds = []
    for _ in range(REPEATS):
        started = perf_counter()
        call()
        seconds.append(perf_counter() - started)
    return min(seconds)
