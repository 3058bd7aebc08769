"""`Verifier`: the right engine passes, a broken export fails with its stage, and a dead process is a row."""

from __future__ import annotations

import signal
import sys

import pytest
from broken_bundles_for_tests import (
    as_int8,
    drop_bias,
    edited,
    forget_255,
    swap_attention_inputs,
    swap_colours,
    without,
)
from bundles_for_tests import make_bundle, tampered, with_card

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.parity_table import engine_band, keep, measured
from melanoma_infer.errors import EngineUnavailableError, ParityError, UsageError
from melanoma_infer.pipeline.scorer import Scorer
from melanoma_infer.verification import in_child
from melanoma_infer.verification.in_child import EngineRequest, run_engine
from melanoma_infer.verification.sample import drawn_sample, slide_sample
from melanoma_infer.verification.verify import Verification, Verifier, wanted_pairs

DYING = """
import json, os, signal, sys
from pathlib import Path
room = Path(sys.argv[1])
request = json.loads((room / "request.json").read_text())
if request["engine"] == "openvino":
    os.kill(os.getpid(), signal.SIGFPE)
from melanoma_infer.verification.engine_child import main
main(room)
"""


def verified(folder, engines=(), precisions=(), *, slides=2) -> Verification:
    bundle = open_bundle(folder)
    sample = drawn_sample(bundle, slides)
    return Verifier(bundle, str(folder), sample).run(wanted_pairs(bundle, engines, precisions))


@pytest.fixture
def dying_openvino(monkeypatch, tmp_path):
    (tmp_path / "dying_child.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(in_child, "CHILD", "dying_child")


def test_right_engines_are_within_their_tolerances(small, in_process):
    table = verified(small, ["openvino", "onnxruntime"], ["fp32", "int8"])
    assert table.passed
    assert table.kept
    assert table.reference == "onnxruntime fp32"
    assert [(row.engine, row.precision) for row in table.rows] == [
        ("openvino", "fp32"), ("openvino", "int8"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")
    ]  # fmt: skip
    assert all((row.tiles, row.slides, row.decision_flips) == (16, 2, 0) for row in table.rows)
    by_precision = {row.precision: row for row in table.rows}
    assert 0 < by_precision["fp32"].max_dp < 1e-5 < 1e-4 < by_precision["int8"].p999_dp < 0.02
    assert all(row.over_tolerance < 1 for row in table.rows)


def test_a_uint8_file_that_is_read_as_int8_is_caught_in_the_backbone(small, tmp_path, in_process):
    table = verified(edited(small, tmp_path / "misread.mminfer", as_int8, "int8"), ["openvino"], ["int8"], slides=8)
    (row,) = table.rows
    assert not table.passed
    assert row.over_tolerance > 3
    assert row.decision_flips > 0
    assert row.stage == "backbone"


@pytest.mark.parametrize(
    ("edit", "words"),
    [(swap_colours, "BGR"), (forget_255, "no division by 255"), (drop_bias(1), "")],
    ids=["bgr", "no-255", "no-bias"],
)
def test_a_model_without_weights_is_held_against_its_golden_outputs(small, tmp_path, in_process, edit, words):
    table = verified(edited(small, tmp_path / "broken.mminfer", edit), ["openvino"], ["fp32"])
    assert table.reference == "golden outputs"
    # ONNX Runtime was to be the reference, and is a row because it disagrees with the golden outputs.
    assert [(row.engine, row.passed) for row in table.rows] == [("onnxruntime", False), ("openvino", False)]
    assert all(row.over_tolerance > 3 for row in table.rows)
    assert all(row.tiles == 4 for row in table.rows)
    if words:
        assert all(row.stage == "input decoding and normalisation" for row in table.rows)
        assert all(words in row.stage_detail for row in table.rows)


@pytest.mark.slow
def test_the_first_failure_of_our_own_network_names_its_stage(demo_folder, tmp_path, in_process):
    folder = edited(demo_folder, tmp_path / "swapped.mminfer", swap_attention_inputs)
    table = verified(folder, ["openvino"], ["fp32"], slides=1)
    (row,) = table.rows
    assert table.reference == "torch fp32"
    assert (row.passed, row.stage) == (False, "attention")
    assert row.over_tolerance > 3


def test_auto_never_takes_what_failed_here_and_the_band_grows(small, tmp_path, in_process):
    folder = with_card(small, tmp_path / "int8.mminfer", precision="int8")
    bundle = open_bundle(folder)
    assert load_engine(bundle).engine.numerics.engine == "openvino"
    before = engine_band(bundle, "openvino", "int8")
    failed = {"passed": False, "why": "decision flips 3 (tolerance 0)", "max_dp": 0.3}
    for engine, left in (("openvino", "onnxruntime"), ("onnxruntime", None)):
        (row,) = verified(folder, [engine], ["int8"]).rows
        keep(bundle, row.model_copy(update=failed))
        if left is None:
            with pytest.raises(EngineUnavailableError, match="mminfer verify"):
                load_engine(bundle)
        else:
            assert load_engine(bundle).engine.numerics.engine == left
    row = measured(bundle, "openvino", "int8")
    assert row is not None
    assert engine_band(bundle, "openvino", "int8") == 2 * row.largest > before
    assert measured(open_bundle(small), "openvino", "int8") != row


def test_what_does_not_give_the_golden_outputs_computes_no_slide(small, tmp_path):
    folder = edited(small, tmp_path / "misread.mminfer", as_int8, "int8")
    bundle = open_bundle(with_card(folder, tmp_path / "int8.mminfer", precision="int8"))
    with pytest.raises(EngineUnavailableError, match=r"openvino: int8 differs from the golden probabilities.*onnx"):
        Scorer(bundle)
    with pytest.raises(ParityError, match=r"openvino must not be used here: int8 differs.* Use --engine auto\."):
        Scorer(bundle, "openvino")
    assert Scorer(bundle, "openvino", precision="fp32").numerics.precision == "fp32"


def test_auto_takes_what_passed_here_although_the_seal_says_otherwise(small, tmp_path, in_process):
    import json

    sealed = {
        "engine": "openvino", "precision": "fp32", "tiles": 4, "max_dp": 0.1, "p999_dp": 0.1, "max_dmm": None,
        "p999_dmm": None, "decision_flips": 1, "on": "another machine",
    }  # fmt: skip
    folder = tampered(small, tmp_path / "sealed.mminfer", "parity.json", json.dumps({"rows": [sealed]}).encode())
    bundle = open_bundle(folder)
    assert load_engine(bundle).engine.numerics.engine == "onnxruntime"
    verified(folder, ["openvino"], ["fp32"])
    assert load_engine(bundle).engine.numerics.engine == "openvino"
    # The band keeps what was seen where it was sealed.
    assert engine_band(bundle, "openvino", "fp32") == 0.2


def test_a_process_that_dies_is_a_failed_row(small, tmp_path, dying_openvino):
    folder = tampered(small, tmp_path / "copy.mminfer", "parity.json", b'{"rows": [ ]}')
    table = verified(folder, ["openvino", "onnxruntime"], ["int8"], slides=1)
    rows = {row.engine: row for row in table.rows}
    assert rows["onnxruntime"].passed
    assert not rows["openvino"].passed
    assert signal.SIGFPE.name in rows["openvino"].why
    assert rows["openvino"].stage == "loading or running"
    assert rows["openvino"].max_dp is None
    bundle = open_bundle(folder)
    assert load_engine(bundle, precision="int8").engine.numerics.engine == "onnxruntime"
    assert engine_band(bundle, "openvino", "int8") == 2.0


def test_what_is_not_here_is_listed_and_fails_nothing(small, in_process):
    table = verified(small, ["torch", "onnxruntime"], ["fp32"], slides=1)
    assert table.passed
    assert [(each.engine, each.precision) for each in table.unavailable] == [("torch", "fp32")]
    assert "weights" in table.unavailable[0].why


def test_nothing_that_can_be_verified_is_an_error(minimal_bundle, in_process):
    with pytest.raises(EngineUnavailableError, match="weights"):
        verified(minimal_bundle, ["torch"], ["fp32"])


def test_an_output_that_is_not_finite_fails(tmp_path, in_process):
    from bundles_for_tests import sometimes_nan_graph

    folder = make_bundle(tmp_path / "nan.mminfer", graph=sometimes_nan_graph(64, above=200), tiles_grey=(190, 170, 60))
    table = verified(folder, ["onnxruntime"], ["fp32"])
    (row,) = table.rows
    assert not row.passed
    assert "not finite" in row.why


@pytest.mark.parametrize(("engines", "precisions"), [(["openvno"], []), ([], ["fp8"])])
def test_unknown_names_are_refused(small, engines, precisions):
    with pytest.raises(UsageError, match="Choose from"):
        wanted_pairs(open_bundle(small), engines, precisions)


def test_a_slide_s_tiles_are_verified_too(small, cmu, in_process):
    from melanoma_infer.settings import Settings

    bundle = open_bundle(small)
    sample = slide_sample(bundle, cmu, Settings(), threads=1)
    assert sample.golden == 4
    assert len(sample.slides[0].rows) == len(sample.tiles) - 4 > 10
    assert Verifier(bundle, str(small), sample).run([("openvino", "fp32")]).passed


def test_a_bundle_that_changes_meanwhile_is_not_verified(small, tmp_path):
    request = EngineRequest(str(small), "0" * 64, "onnxruntime", "fp32")
    answer = run_engine(request, open_bundle(small).golden.tiles)
    assert "changed while it was verified" in answer.failure


def test_a_child_imports_nothing_from_the_current_folder(small, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *(path for path in sys.path if path)])
    bundle = open_bundle(small)
    answer = run_engine(EngineRequest(str(small), bundle.digest, "onnxruntime", "fp32"), bundle.golden.tiles)
    assert answer.outputs is not None


def test_drawn_tiles_are_the_same_every_time(small):
    bundle = open_bundle(small)
    one, two = drawn_sample(bundle, 4), drawn_sample(bundle, 4)
    assert (one.tiles == two.tiles).all()
    assert len(one.slides) == 4
    assert not (one.tiles[4:10] == one.tiles[10:16]).all()
    only = one.only_golden()
    assert (only.tiles == bundle.golden.tiles).all()


@pytest.mark.slow
def test_weights_that_disagree_with_the_golden_outputs_are_no_reference(demo_folder, tmp_path, in_process):
    from safetensors.numpy import load, save

    weights = load((demo_folder / "weights.safetensors").read_bytes())
    weights["attention.weight"] = weights["attention.weight"] * 1.5
    folder = tampered(demo_folder, tmp_path / "weights.mminfer", "weights.safetensors", save(weights))
    table = verified(folder, ["openvino"], ["fp32"], slides=1)
    assert table.reference == "onnxruntime fp32"
    assert {row.engine: row.passed for row in table.rows} == {"torch": False, "openvino": True}


@pytest.mark.slow
def test_without_weights_the_graph_in_onnx_runtime_is_the_reference(demo_folder, tmp_path, in_process):
    folder = without(demo_folder, tmp_path / "plain.mminfer", "weights.safetensors")
    table = verified(folder, ["openvino"], ["fp32"], slides=1)
    assert table.reference == "onnxruntime fp32"
    assert table.passed
