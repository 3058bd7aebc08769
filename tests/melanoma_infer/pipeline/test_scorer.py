"""The scorer: each tile's result in order, and the graph held to the head on the host."""

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import EngineChoice
from melanoma_infer.engines.base import Numerics
from melanoma_infer.engines.frames import Frames
from melanoma_infer.errors import ParityError, SlideUnreadableError
from melanoma_infer.geometry import RectPx
from melanoma_infer.pipeline import scorer as scorer_module
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.records import NativeTile, ReadTile, Tile
from melanoma_infer.scoring.aggregation import exact_sums
from melanoma_infer.tiles.feed import Feed
from melanoma_infer.tiles.pixels import resized

OPENVINO = Numerics("openvino", "1", "fp32", "CPU")


class Given:
    """An engine that gives prepared outputs, one tile after the other."""

    tiles_at_once = 2

    def __init__(self, outputs, numerics, batch=1):
        self.outputs, self.numerics, self.batch = outputs, numerics, batch

    def infer_each(self, tiles):
        given = (outputs for _, outputs in zip(tiles, self.outputs, strict=False))
        while several := list(islice(given, self.batch)):
            yield {name: np.stack([each[name] for each in several]) for name in several[0]}


@pytest.fixture(scope="module")
def scorer():
    return Scorer(open_bundle("demo"))


@pytest.fixture
def inferred(scorer, monkeypatch):
    """The results of tiles for which the engine gives these outputs; None for a tile without pixels."""

    def run(*outputs, numerics=OPENVINO, batch=1):
        monkeypatch.setattr(scorer, "_engine", Given([each for each in outputs if each is not None], numerics, batch))
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


def test_a_batch_is_compared_with_the_head_at_once_and_its_tiles_stay_apart(scorer, inferred, golden, monkeypatch):
    calls, head = [], type(scorer.bundle.head).logits
    monkeypatch.setattr(type(scorer.bundle.head), "logits", lambda *args: calls.append(len(args[1])) or head(*args))
    broken = golden(2, features=np.full_like(golden()["features"], np.inf))
    outputs = [golden(0), None, broken, golden(1), golden(3), None, golden(2)]
    results = inferred(*outputs, batch=4)
    assert calls == [3, 1]
    assert [result.cause for result in results] == ["", "read-failed", "non-finite-output", "", "", "read-failed", ""]
    for result, given in zip(results, outputs, strict=True):
        if result.status == "ok":
            assert all(np.array_equal(result.outputs[name], values) for name, values in given.items())
    with pytest.raises(ParityError):
        inferred(golden(0), broken, moved(golden, 0.2), golden(3), batch=4)


def test_tiles_without_pixels_keep_their_place_and_never_reach_the_engine(inferred, golden):
    results = inferred(None, golden(2), None, None, golden(3), None)
    assert [result.cause for result in results] == ["read-failed", "", "read-failed", "read-failed", "", "read-failed"]
    assert [result.tile.index for result in results] == list(range(6))
    np.testing.assert_array_equal(results[4].outputs["features"], golden(3)["features"])


def test_a_slide_without_one_readable_tile_is_an_error(inferred):
    with pytest.raises(SlideUnreadableError, match="None of the slide's 2 tiles can be read"):
        inferred(None, None)
    assert inferred() == []


def scorer_on(engine, monkeypatch, threads=None):
    monkeypatch.setattr(scorer_module, "load_engine", lambda *_, **__: EngineChoice(engine, ("triton: no driver",)))
    return Scorer(open_bundle("demo"), threads=threads)


@pytest.mark.parametrize(
    ("engine", "readers"),
    [("openvino", 4), ("onnxruntime", 4), ("torch", 4), ("triton", 14), ("tensorrt", 14), ("tensorrt-rtx", 14)],
)
def test_an_engine_on_a_gpu_is_fed_by_all_cores_but_two(monkeypatch, engine, readers):
    engine = SimpleNamespace(numerics=replace(OPENVINO, engine=engine), tiles_at_once=2)
    scorer = scorer_on(engine, monkeypatch, threads=16)
    assert (scorer.feed.readers, scorer._queue._threads) == (readers, readers)


def test_tiles_are_given_native_to_an_engine_that_resizes_as_pillow_does(monkeypatch):
    frames = Frames(np.empty)
    scorer = scorer_on(SimpleNamespace(numerics=OPENVINO, tiles_at_once=2, resized=resized, frames=frames), monkeypatch)
    assert scorer.feed == Feed(min(scorer.threads, 4), 2, frames.take, resizes=True)
    assert scorer.skipped == ("triton: no driver",)


def test_an_engine_that_resizes_otherwise_gets_resized_tiles_and_it_is_said(monkeypatch):
    def wrong(tile):
        pixels = resized(tile)
        pixels[3, 4, 1] ^= tile.block_px == 2  # one bit of one byte
        return pixels

    frames = Frames(np.empty)
    scorer = scorer_on(SimpleNamespace(numerics=OPENVINO, tiles_at_once=2, resized=wrong, frames=frames), monkeypatch)
    assert (scorer.feed.take_frame, scorer.feed.resizes) == (frames.take, False)
    assert "1 of" in scorer.skipped[-1]
    assert "resized on the CPU" in scorer.skipped[-1]


def test_an_engine_that_does_not_resize_gets_resized_tiles(scorer):
    assert (scorer.feed.take_frame, scorer.feed.resizes) == (None, False)


def test_an_engine_adds_up_scores_if_its_sums_are_the_host_s(monkeypatch):
    def own_sums(steps, count):
        return exact_sums(steps, count)

    def wrong_sums(steps, count):
        sums = exact_sums(steps, count)
        return sums._replace(last=sums.last + (count == 700))

    scorer = scorer_on(SimpleNamespace(numerics=OPENVINO, tiles_at_once=2, score_sums=own_sums), monkeypatch)
    assert scorer.sum_scores is own_sums
    scorer = scorer_on(SimpleNamespace(numerics=OPENVINO, tiles_at_once=2, score_sums=wrong_sums), monkeypatch)
    assert scorer.sum_scores is exact_sums
    assert "added up on the CPU" in scorer.skipped[-1]


def test_an_engine_that_does_not_add_up_scores_leaves_it_to_the_host(scorer):
    assert scorer.sum_scores is exact_sums


def test_native_tiles_reach_the_engine_as_they_are(scorer, monkeypatch, golden):
    native = NativeTile(np.zeros((4, 4, 4), np.uint8), (4, 4), (0, 0, 4, 4), 1, 4)
    seen = []

    class Taking(Given):
        def infer_each(self, tiles):
            return super().infer_each(seen.append(tile) or tile for tile in tiles)

    monkeypatch.setattr(scorer, "_engine", Taking([golden()], OPENVINO))
    tiles = [Tile(i, RectPx(4 * i, 0, 4, 4), 1.0, 0.0) for i in range(2)]
    results = list(scorer.infer([ReadTile(tiles[0], None), ReadTile(tiles[1], None, native=native)]))
    assert seen == [native]
    assert [result.status for result in results] == ["unreadable", "ok"]
