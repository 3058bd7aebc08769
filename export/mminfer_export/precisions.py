"""Adds a precision to a bundle: a graph made from the float32 one, and its parity on each engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melanoma_infer.bundle.bundle import Bundle, ParityRow, finite_tensors
from melanoma_infer.bundle.graph_checks import check_graph
from melanoma_infer.bundle.half import to_half
from melanoma_infer.bundle.head import TENSORS
from melanoma_infer.card import ModelCard
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.base import Outputs
from melanoma_infer.engines.golden import golden_differences
from melanoma_infer.errors import EngineUnavailableError, ParityError
from melanoma_infer.runtime.plural import plural
from melanoma_infer.tolerances import Precision
from melanoma_infer.verification.differences import Excess, beyond, differences
from mminfer_export.bias_correction import correct_bias
from mminfer_export.parity import parity_row
from mminfer_export.phantom_tiles import phantom_tiles
from mminfer_export.quantize import calibrate, most_harmful, quantize
from mminfer_export.seal import seal_bundle

Made = Literal["fp32", "fp16", "int8"]
ENGINES = ("openvino", "onnxruntime")
"""These run every graph on any CPU."""
CALIBRATION_TILES, CALIBRATION_SEED = 16, 11
"""12 and 32 tiles gave int8 files of the same accuracy."""
CHECK_TILES, CHECK_SEED = 16, 12
"""Not the tiles of calibration."""
ROOM = 0.5
"""Largest share of the tolerance that int8 may use on these tiles: on others it was seen to differ twice as much."""
RANKING_TILES = 3
KEPT_FLOAT = (2, 4, 8, 16, 24, 32, 40, 46, 50)
"""How many of the worst layers stay in float, tried in turn. Wide networks need none: their errors cancel."""


@dataclass(frozen=True)
class Tiles:
    """Tiles uint8 (N, tile_px, tile_px, 3), and their description: "16 drawn tiles"."""

    pixels: NDArray[np.uint8]
    on: str


@dataclass(frozen=True)
class Added:
    """A graph of another precision, its parity rows, and the layers that int8 left in float."""

    precision: Made
    graph: bytes
    rows: tuple[ParityRow, ...]
    kept_float: tuple[str, ...] = ()


def calibration_tiles(card: ModelCard) -> Tiles:
    """The drawn tiles that int8 is calibrated on if the user names no slide."""
    return Tiles(phantom_tiles(card, CALIBRATION_TILES, CALIBRATION_SEED), f"{CALIBRATION_TILES} drawn tiles")


def check_tiles(card: ModelCard) -> Tiles:
    """The drawn tiles that a new graph is compared on."""
    return Tiles(phantom_tiles(card, CHECK_TILES, CHECK_SEED), f"{CHECK_TILES} drawn tiles")


def make_precision(
    bundle: Bundle, precision: Made, calibration: Tiles | None = None, checked: Tiles | None = None
) -> Added:
    """The graph of another precision, within the card's tolerance on OpenVINO and, if it loads, ONNX Runtime.

    int8 keeps its worst layers in float, one after the other, until ROOM of the tolerance is enough, or else the whole.

    Args:
        bundle: with a float32 graph.
        precision: to be made.
        calibration: tiles for int8's ranges, in addition to drawn ones, which keep room for what these tiles do
            not show: the golden tiles are drawn, too. They are compared on as well.
        checked: tiles to compare on in place of drawn ones: what a model that learned from tissue does with drawings
            does not matter.

    Raises:
        ParityError: no graph of this precision is within the tolerance.
        BundleError: the float32 graph is not one that can be converted.
        EngineUnavailableError: a package that is needed is not installed.
    """
    own = [] if calibration is None else [calibration]
    golden = Tiles(bundle.golden.tiles, plural(len(bundle.golden.tiles), "golden tile"))
    compared = _joined(golden, checked or check_tiles(bundle.card), *own)
    reference = reference_outputs(bundle, compared.pixels)
    # The first of these tiles are the golden ones.
    first = {name: values[: len(bundle.golden.tiles)] for name, values in reference.items()}
    if excess := golden_differences(bundle, first).excess(bundle.card.tolerance_of("fp32")):
        raise ParityError(
            f"On this machine fp32 differs from the {excess}. No other precision can be compared with it: run "
            "`mminfer doctor`."
        )
    tried = []
    for added in _attempts(bundle, precision, _joined(*own, calibration_tiles(bundle.card))):
        check_graph(added.graph, bundle.card)
        rows, worst = _compared(bundle, added, reference, compared)
        tried.append((worst, replace(added, rows=tuple(rows))))
        if worst.ratio <= ROOM:
            break
    worst, best = min(tried, key=lambda each: _ratio(each[0]))
    if not _ratio(worst) <= 1:
        raise ParityError(
            f"The {precision} graph differs from fp32 by more than the card's tolerance: {worst}. No bundle was "
            "written. Calibrate on tiles like those to be scored (--calibration SLIDE, --tiles FOLDER), or keep the "
            "precisions that exist."
        )
    return best


def _compared(bundle: Bundle, added: Added, reference: Outputs, tiles: Tiles) -> tuple[list[ParityRow], Excess]:
    """A row for each engine, and the figure with the largest ratio to its tolerance on any of them."""
    rows: list[ParityRow] = []
    excess: list[Excess] = []
    graphs = {**bundle.graphs, added.precision: added.graph}
    tolerance = bundle.card.tolerance_of(added.precision)
    for engine, outputs in _each_engine(replace(bundle, graphs=graphs), added.precision, tiles):
        seen = differences(bundle, reference, outputs, band=tolerance.dp)
        rows.append(parity_row(seen, engine.numerics, tiles=len(tiles.pixels), on=tiles.on))
        excess += beyond(seen, tolerance)
    return rows, max(excess, key=_ratio)


def _ratio(excess: Excess) -> float:
    """The ratio of a figure to its tolerance; infinite for NaN, which must fail."""
    return np.inf if np.isnan(excess.ratio) else excess.ratio


def reference_outputs(bundle: Bundle, tiles: NDArray[np.uint8]) -> Outputs:
    """The reference outputs in float32: from PyTorch for our own network, else from ONNX Runtime."""
    name = "torch" if bundle.weights is not None and bundle.card.network is not None else "onnxruntime"
    return load_engine(bundle, name, precision="fp32").engine.infer(tiles)


def write_with(bundle: Bundle, added: Sequence[Added], out: Path) -> Path:
    """Return `out`, a new bundle: the given one and the added graphs, checksums and parity renewed.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """
    made = {each.precision for each in added}
    kept = [row for row in bundle.parity if row.precision not in made]
    # The head as it was sealed: its float64 arrays came from float32.
    head = None
    if bundle.head is not None:
        head = {name: getattr(bundle.head, name).astype(np.float32) for name in TENSORS}
    return seal_bundle(
        out,
        card=bundle.card,
        graphs={**bundle.graphs, **{each.precision: each.graph for each in added}},
        golden=bundle.golden,
        parity=[*kept, *(row for each in added for row in each.rows)],
        head=head,
        weights=None if bundle.weights is None else finite_tensors(bundle.weights, "weights.safetensors"),
    )


def _attempts(bundle: Bundle, precision: Made, calibration: Tiles) -> Iterator[Added]:
    if precision != "int8":
        graph = bundle.graphs["fp32"]
        yield Added(precision, to_half(graph) if precision == "fp16" else graph, ())
        return
    calibrated = calibrate(bundle.graphs["fp32"], calibration.pixels)

    def int8(kept: Sequence[str] = ()) -> Added:
        graph = correct_bias(quantize(calibrated, kept), calibrated.model, calibration.pixels)
        return Added("int8", graph, (), tuple(kept))

    yield int8()
    worst = most_harmful(calibrated, calibration.pixels[:RANKING_TILES])
    for count in KEPT_FLOAT:
        if count < len(worst):
            yield int8(worst[:count])


def _each_engine(bundle: Bundle, precision: Precision, tiles: Tiles) -> Iterator[tuple[Any, Outputs]]:
    """Each engine that loads, with its outputs; OpenVINO must load."""
    for name in ENGINES:
        try:
            engine = load_engine(bundle, name, precision=precision).engine
        except EngineUnavailableError:
            if name == "openvino":
                raise
            continue
        yield engine, engine.infer(tiles.pixels)


def _joined(*parts: Tiles) -> Tiles:
    return Tiles(np.concatenate([part.pixels for part in parts]), ", ".join(part.on for part in parts))
