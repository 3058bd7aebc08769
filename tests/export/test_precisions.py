"""Which of several int8 graphs is taken: the first with room below the tolerance, else the best within it."""

import math

import numpy as np
import pytest

from melanoma_infer.errors import ParityError
from melanoma_infer.verification.differences import Excess
from mminfer_export import precisions
from mminfer_export.precisions import Added, make_precision


@pytest.fixture
def taken(small, monkeypatch):
    """How many graphs were tried and which was taken, when theirs are these ratios to the tolerance."""

    def of(ratios):
        tried = []

        def compared(_bundle, added, _reference, _tiles):
            tried.append(added)
            ratio = ratios[len(tried) - 1]
            return [], Excess("p99.9 |Δp|", ratio * 0.02, 0.02, ratio)

        attempts = [Added("int8", bytes([i]), ()) for i in range(len(ratios))]
        monkeypatch.setattr(precisions, "reference_outputs", lambda *_: small.bundle.golden.outputs)
        monkeypatch.setattr(precisions, "check_graph", lambda *_: None)
        monkeypatch.setattr(precisions, "_attempts", lambda *_: iter(attempts))
        monkeypatch.setattr(precisions, "_compared", compared)
        return make_precision(small.bundle, "int8").graph[0], len(tried)

    return of


@pytest.mark.parametrize(
    ("ratios", "index", "tried"),
    [
        ([0.1, 0.05], 0, 1),
        ([0.9, 0.4, 0.1], 1, 2),
        ([1.4, 0.8, 0.9], 1, 3),
        ([math.nan, 0.9], 1, 2),
    ],
)
def test_the_first_with_room_else_the_best_within_the_tolerance(taken, ratios, index, tried):
    assert taken(ratios) == (index, tried)


@pytest.mark.parametrize("ratios", [[1.1, 3.0], [math.nan], [math.nan, 1.01]])
def test_nothing_within_the_tolerance_is_no_bundle(taken, ratios):
    with pytest.raises(ParityError, match="differs from fp32 by more than the card's tolerance"):
        taken(ratios)


def test_a_nan_in_any_figure_of_any_engine_is_the_worst(small, monkeypatch):
    outputs = {name: values.copy() for name, values in small.outputs.items()}
    outputs["features"][0, 0] = np.nan
    engine = type("Engine", (), {"numerics": None})()
    both = [(engine, small.outputs), (engine, outputs), (engine, small.outputs)]
    monkeypatch.setattr(precisions, "_each_engine", lambda *_: iter(both))
    monkeypatch.setattr(precisions, "parity_row", lambda *_args, **_named: None)
    tiles = precisions.Tiles(small.tiles, "other tiles")
    _rows, worst = precisions._compared(small.bundle, Added("int8", b"", ()), small.outputs, tiles)
    assert math.isnan(worst.ratio)
