"""The scorer: each tile's result in order, and the graph held to the head on the host."""

from dataclasses import replace

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines.base import Numerics
from melanoma_infer.errors import ParityError, SlideUnreadableError
from melanoma_infer.geometry import RectPx
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.records import ReadTile, Tile

OPENVINO = Numerics("openvino", "1", "fp32", "CPU")


class Given:
    """An engine that gives prepared outputs, one tile after the other."""

    tiles_at_once = 2

    def __init__(self, outputs, numerics):
        self.outputs, self.numerics = outputs, numerics

    def infer_each(self, tiles):
        for _, outputs in zip(tiles, self.outputs, strict=False):
            yield {name: values[None] for name, values in outputs.items()}


@pytest.fixture(scope="module")
def scorer():
    return Scorer(open_bundle("demo"))


@pytest.fixture
def inferred(scorer, monkeypatch):
    """The results of tiles for which the engine gives these outputs; None for a tile without pixels."""

    def run(*outputs, numerics=OPENVINO):
        monkeypatch.setattr(scorer, "_engine", Given([each for each in outputs if each is not None], numerics))
        pixels = np.zeros((4, 4, 3), np.uint8)
        tiles = [Tile(i, RectPx(4 * i, 0, 4, 4), 1.0, 0.0) for i in range(len(outputs))]
        reads = [ReadTile(t, None if o is None else pixels) for t, o in zip(tiles, outputs, strict=True)]
        return list(scorer.infer(reads))

    return run


@pytest.fixture
def golden(scorer):
    """The golden outputs of a tile, changed as asked."""

    def outputs(row=1, **changed):
        return {name: values[row] for name, values in scorer.bundle.golden.outputs.items()} | changed

    return outputs


def moved(golden, shift):
    return golden(probabilities=golden()["probabilities"] + np.array([-shift, shift, 0, 0], np.float32))


@pytest.mark.parametrize("shift", [0.0003, 0.2])
def test_a_graph_that_disagrees_with_the_hosts_head_is_refused(inferred, golden, shift):
    with pytest.raises(ParityError, match="head of this bundle disagree") as caught:
        inferred(moved(golden, shift))
    assert caught.value.exit_code == 22


def test_rounding_is_no_disagreement(inferred, golden):
    (result,) = inferred(moved(golden, 0.00005))
    assert result.status == "ok"


def test_features_of_another_tile_are_refused(inferred, golden):
    with pytest.raises(ParityError):
        inferred(golden(0, features=golden(3)["features"]))


def test_a_coarser_precision_may_differ_by_twice_its_own_tolerance(inferred, golden):
    inferred(moved(golden, 0.009), numerics=replace(OPENVINO, precision="bf16"))
    with pytest.raises(ParityError):
        inferred(moved(golden, 0.009))


@pytest.mark.parametrize("name", ["features", "probabilities", "depth_mm"])
def test_numbers_that_are_not_finite_make_a_tile_unreadable(inferred, golden, name):
    broken = golden(**{name: np.full_like(golden()[name], np.nan)})
    assert [(each.status, each.cause) for each in inferred(golden(), broken)] == [
        ("ok", ""), ("unreadable", "non-finite-output"),
    ]  # fmt: skip


def test_tiles_without_pixels_keep_their_place_and_never_reach_the_engine(inferred, golden):
    results = inferred(None, golden(2), None, None, golden(3), None)
    assert [result.cause for result in results] == ["read-failed", "", "read-failed", "read-failed", "", "read-failed"]
    assert [result.tile.index for result in results] == list(range(6))
    np.testing.assert_array_equal(results[4].outputs["features"], golden(3)["features"])


def test_a_slide_without_one_readable_tile_is_an_error(inferred):
    with pytest.raises(SlideUnreadableError, match="None of the slide's 2 tiles can be read"):
        inferred(None, None)
    assert inferred() == []
