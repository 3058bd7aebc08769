"""Engines: each gives the same numbers, one that cannot run says why, and non-finite outputs are caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bundles_for_tests import expected_probability, make_bundle

from melanoma_infer.bundle.bundle import Bundle, ParityRow, open_bundle
from melanoma_infer.engines import MODULES, ON_GPU, load_engine, quiet
from melanoma_infer.engines.base import Numerics, OneAtATime, first_non_finite
from melanoma_infer.engines.check import check_engine
from melanoma_infer.engines.golden import golden_differences
from melanoma_infer.engines.openvino_engine import threads_per_stream
from melanoma_infer.errors import EngineUnavailableError
from melanoma_infer.geometry import RectPx
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.records import ReadTile, Tile
from melanoma_infer.tolerances import Tolerance

ON_CPU = [name for name in MODULES if name not in ON_GPU]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """`auto` chooses as on a machine without a GPU; `test_triton_engine` covers the other machines."""
    monkeypatch.setattr("melanoma_infer.engines.device.DRIVER_FILES", ())


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle("demo")


@pytest.fixture
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ON_CPU)
def test_every_engine_gives_the_golden_outputs(demo, name):
    engine = load_engine(demo, name).engine
    outputs = engine.infer(demo.golden.tiles)
    for output, golden in demo.golden.outputs.items():
        scale = np.abs(golden).max()
        assert np.abs(outputs[output] - golden).max() <= 1e-4 * max(1.0, scale), output
    assert check_engine(demo, name, "fp32").state == "agrees"


def test_the_golden_check_detects_a_wrong_model(demo):
    """The check can fail: golden outputs that are off by 0.001 are detected."""
    shifted = {name: values + 1e-3 for name, values in demo.golden.outputs.items()}
    golden = type(demo.golden)(demo.golden.tiles, demo.golden.patients, shifted, demo.golden.host_probabilities)
    changed = Bundle(**{**{k: v for k, v in vars(demo).items() if k != "precisions"}, "golden": golden})
    assert check_engine(changed, "openvino", "fp32").state == "differs"


@pytest.mark.parametrize(
    ("output", "by", "excess"),
    [
        ("probabilities", 0.9e-4, None),
        ("probabilities", 2e-4, "golden probabilities by up to 0.0002; the card's tolerance is 0.0001"),
        ("depth_mm", 0.006, "golden depth_mm by up to 0.006; the card's tolerance is 0.005"),
        ("cam", np.nan, "golden cam: it is not finite here"),
    ],
)
def test_golden_differences_are_held_to_the_card_s_tolerance(demo, output, by, excess):
    outputs = {name: np.concatenate([values] * 3) for name, values in demo.golden.outputs.items()}
    outputs[output] = outputs[output].astype(np.float64)
    outputs[output][-1] += by
    assert golden_differences(demo, outputs).excess(demo.card.tolerance_of("fp32")) == excess


def test_the_host_s_head_counts_where_it_is_asked_for(demo):
    """Features that are wrong move the head's answer, and nothing that the graph itself says of a tile."""
    outputs = {**demo.golden.outputs, "features": demo.golden.outputs["features"] + 1}
    assert golden_differences(demo, outputs).max_dp == 0
    assert golden_differences(demo, outputs, host=True).max_dp > 0.01


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_graph_with_known_weights_gives_the_expected_numbers(colour_bundle, tiles, name):
    outputs = load_engine(open_bundle(colour_bundle), name).engine.infer(tiles)
    assert outputs["probabilities"][:, 1] == pytest.approx(expected_probability(tiles), abs=2e-6)


@pytest.mark.parametrize("name", ON_CPU)
def test_a_tile_gets_the_same_bits_alone_and_among_others(demo, name):
    engine = load_engine(demo, name).engine
    golden = demo.golden.tiles
    together = engine.infer(golden)
    for i in (2, 0, 3):
        alone = engine.infer(golden[i : i + 1])
        for output in together:
            assert np.array_equal(alone[output][0], together[output][i]), output


@pytest.mark.parametrize("name", ON_CPU)
def test_a_stream_of_tiles_gets_the_answer_for_each_in_order(demo, name):
    engine = load_engine(demo, name).engine
    golden = demo.golden.tiles
    together = engine.infer(golden)
    order = [0, 3, 1, 2, 2, 0, 1, 3, 0, 0, 1, 2, 3]
    answers = list(engine.infer_each(golden[i] for i in order))
    assert len(answers) == len(order)
    for i, answer in zip(order, answers, strict=True):
        for output in together:
            assert np.array_equal(answer[output][0], together[output][i]), output
    assert list(engine.infer_each(iter(()))) == []


def test_an_engine_still_works_after_a_stream_was_closed_early(demo):
    engine = load_engine(demo, "openvino").engine
    golden = demo.golden.tiles
    stream = engine.infer_each(golden[i % 4] for i in range(20))
    next(stream)
    stream.close()
    again = engine.infer(golden[2:3])["probabilities"]
    assert np.array_equal(again, load_engine(demo, "openvino").engine.infer(golden[2:3])["probabilities"])


def test_a_limited_number_of_tiles_is_prefetched(demo):
    """Tiles are read while the engine computes, but never the whole slide."""
    engine = load_engine(demo, "openvino", threads=2).engine
    taken: list[int] = []

    def tiles():
        for i in range(40):
            taken.append(i)
            yield demo.golden.tiles[i % 4]

    for done, _ in enumerate(engine.infer_each(tiles()), start=1):
        assert len(taken) <= done + engine.tiles_at_once
        if done == 1:
            assert len(taken) > 1


def test_openvino_compiles_each_stream_alone_and_pins_none(demo, monkeypatch):
    """Streams of one compiled graph have got each other's weights; pinned streams share the first core."""
    openvino = quiet.openvino()
    compile_model, configs = openvino.Core.compile_model, []

    def noted(core, model, device, config):
        configs.append(config)
        return compile_model(core, model, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    engine = load_engine(demo, "openvino", threads=3).engine
    assert [config["INFERENCE_NUM_THREADS"] for config in configs] == [1, 1, 1]
    assert {(config["NUM_STREAMS"], config["ENABLE_CPU_PINNING"]) for config in configs} == {(1, False)}
    assert engine.tiles_at_once == 6


@pytest.mark.parametrize(
    ("threads", "each"), [(1, [1]), (2, [1, 1]), (8, [1] * 8), (11, [2, 2, 2, 1, 1, 1, 1, 1]), (16, [2] * 8)]
)
def test_the_threads_are_divided_among_the_streams(threads, each):
    assert threads_per_stream(threads, 8) == each


def test_tiles_without_pixels_keep_their_place_among_the_results(colour_bundle):
    """Also if the last ones, or the engine's whole queue, have none."""
    scorer = Scorer(open_bundle(colour_bundle), threads=2)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for pattern in (".", "..x", "x.x", ".xxxxxxxxx.", "......x.....x"):
        reads = [
            ReadTile(Tile(i, RectPx(i, 0, 64, 64), 1.0, 0.0), pixels if kind == "." else None)
            for i, kind in enumerate(pattern)
        ]
        results = list(scorer.infer(reads))
        assert [each.tile.index for each in results] == list(range(len(pattern)))
        assert [each.cause for each in results] == ["read-failed" if kind == "x" else "" for kind in pattern]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_the_number_of_threads_changes_no_bit(demo, name, precision):
    answers = [
        load_engine(demo, name, precision=precision, threads=n).engine.infer(demo.golden.tiles) for n in (1, 2, 4)
    ]
    for other in answers[1:]:
        for output in other:
            assert np.array_equal(answers[0][output], other[output]), output


def test_onnxruntime_computes_a_tile_on_one_thread_and_as_many_tiles_as_there_are_threads(demo):
    """One cannot know in advance for which graphs the last bits depend on how many threads share a tile."""
    for threads in (1, 2, 4):
        engine = load_engine(demo, "onnxruntime", precision="int8", threads=threads).engine
        assert engine._session.get_session_options().intra_op_num_threads == 1
        assert engine.tiles_at_once == 2 * threads


def test_the_reference_engine_is_float32_on_a_gpu_too(demo, monkeypatch):
    """CuDNN's float32 convolutions are TF32 by default."""
    from melanoma_infer.model.melanoma_net import MelanomaNet

    conv, forward, flags = torch.backends.cudnn.conv, MelanomaNet.forward, []

    def noted(net, tiles):
        flags.append((conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
        return forward(net, tiles)

    monkeypatch.setattr(MelanomaNet, "forward", noted)
    load_engine(demo, "torch").engine.infer(demo.golden.tiles[:1])
    assert flags == [("ieee", "ieee")]


def test_auto_chooses_openvino_first(demo):
    choice = load_engine(demo)
    assert choice.engine.numerics.engine == "openvino"
    assert choice.skipped == ()


def _with_parity(bundle: Bundle, **row: object) -> Bundle:
    whole = {
        "engine": "openvino", "precision": "fp32", "tiles": 4, "max_dp": 0.0, "p999_dp": 0.0, "max_dmm": None,
        "p999_dmm": None, "decision_flips": 0, "on": "nothing",
    }  # fmt: skip
    fields = {name: value for name, value in vars(bundle).items() if name != "precisions"}
    return Bundle(**{**fields, "parity": (ParityRow.model_validate(whole | row),)})


@pytest.mark.parametrize("row", [{"p999_dp": 2e-4}, {"p999_dmm": 0.006}, {"decision_flips": 1}])
def test_auto_skips_an_engine_beyond_its_tolerance_and_says_why(demo, row):
    choice = load_engine(_with_parity(demo, **row))
    assert choice.engine.numerics.engine == "onnxruntime"
    assert "openvino" in choice.skipped[0]
    assert "tolerance" in choice.skipped[0]


def test_a_precision_that_the_card_gives_no_tolerance_is_held_to_its_default(demo, monkeypatch):
    """The card states an fp32 tolerance alone; int8 rows beyond int8's default are refused all the same.

    The golden tiles of a narrow network are beyond it, too, so they are not looked at.
    """
    monkeypatch.setattr("melanoma_infer.engines.golden_failure", lambda *_: None)
    card = demo.card.model_copy(update={"tolerances": {"fp32": Tolerance(dp=1e-4, dmm=0.005)}})
    for row in ({"decision_flips": 9}, {"p999_dp": 0.021}, {"p999_dmm": 0.051}):
        bundle = replace(_with_parity(demo, precision="int8", **row), card=card)
        assert load_engine(bundle, "openvino", precision="fastest").engine.numerics.precision == "fp32"
        choice = load_engine(bundle, precision="int8")
        assert choice.engine.numerics.engine == "onnxruntime"
        assert choice.skipped[0].startswith("openvino: int8 differs from the reference")


def test_auto_says_why_nothing_runs(demo, monkeypatch):
    monkeypatch.setattr("melanoma_infer.engines.MODULES", {"torch": MODULES["torch"]})
    with pytest.raises(EngineUnavailableError, match="weights"):
        load_engine(Bundle(**{**{k: v for k, v in vars(demo).items() if k != "precisions"}, "weights": None}))


def test_bf16_is_unavailable_on_a_cpu_without_it(demo, monkeypatch):
    monkeypatch.setattr("melanoma_infer.engines.openvino_engine.cpu_has_bf16", lambda: False)
    with pytest.raises(EngineUnavailableError, match="bf16"):
        load_engine(demo, "openvino", precision="bf16")


@pytest.mark.parametrize("name", ["onnxruntime", "torch", "openvino"])
def test_a_runtime_that_is_not_installed_says_what_to_install(demo, name, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineUnavailableError, match="pip install"):
        load_engine(demo, name)


def test_torch_needs_weights_of_our_own_network(minimal_bundle):
    with pytest.raises(EngineUnavailableError, match="weights"):
        load_engine(open_bundle(minimal_bundle), "torch")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_output_is_named_features_first(bad):
    fine = np.zeros((1, 4))
    assert first_non_finite({"probabilities": fine, "features": fine}) is None
    assert first_non_finite({"probabilities": fine + bad, "features": fine}) == "probabilities"
    assert first_non_finite({"attention": fine + bad, "features": fine + bad}) == "features"


def test_a_tile_with_a_non_finite_output_is_unreadable(colour_bundle, monkeypatch):
    scorer = Scorer(open_bundle(colour_bundle))

    class Broken(OneAtATime):
        numerics = Numerics("broken", "0", "fp32", "cpu")

        def infer(self, tiles: np.ndarray) -> dict[str, np.ndarray]:
            return {"probabilities": np.full((len(tiles), 2), np.nan, np.float32)}

    monkeypatch.setattr(scorer, "_engine", Broken())
    tile = Tile(0, RectPx(0, 0, 64, 64), 1.0, 0.0)
    (result,) = scorer.infer([ReadTile(tile, np.zeros((64, 64, 3), np.uint8))])
    assert (result.status, result.cause) == ("unreadable", "non-finite-output")


def test_a_graph_that_no_runtime_compiles_is_an_engine_error(tmp_path):
    from bundles_for_tests import colour_rule_graph, tampered

    graph = colour_rule_graph(64)
    graph.graph.node[3].input[1] = "axes"  # a Gemm with integer weights: a valid graph that cannot run
    whole = make_bundle(tmp_path / "whole.mminfer")
    bundle = open_bundle(tampered(whole, tmp_path / "copy.mminfer", "model.fp32.onnx", graph.SerializeToString()))
    for name in ("openvino", "onnxruntime"):
        with pytest.raises(EngineUnavailableError):
            load_engine(bundle, name)
