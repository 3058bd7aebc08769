"""The demo bundle: small, honest about itself, and with outputs that can tell right from wrong."""

import os
import subprocess
import sys

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import PACKAGED, open_bundle
from melanoma_infer.engines import load_engine
from melanoma_infer.tolerances import DEFAULT_TOLERANCES
from mminfer_export.demo_bundle import demo_card, draw_tile, drawn_tiles


@pytest.fixture(scope="module")
def demo():
    return open_bundle("demo")


@pytest.fixture(scope="module")
def outputs(demo):
    """The packaged bundle's outputs on the drawn tiles, by the default engine."""
    return load_engine(demo, "openvino").engine.infer(drawn_tiles())


def malignant(card, probabilities):
    return probabilities[:, list(card.malignant_columns)].sum(1)


def test_it_is_smaller_than_9_mb():
    assert sum(path.stat().st_size for path in (PACKAGED / "demo.mminfer").iterdir()) < 9_000_000


def test_its_card_says_that_it_is_not_trained(demo):
    assert (demo.card.trained, demo.card.domain) == (False, "phantom")
    assert "untrained" in demo.card.threshold.how
    assert comparable(demo.card) == comparable(demo_card())


def comparable(card):
    """The card without what is measured, every bound of its tolerances set."""
    tolerances = {precision: card.tolerance_of(precision) for precision in DEFAULT_TOLERANCES}
    return card.model_copy(update={"cam_scale": None, "tolerances": tolerances})


def test_the_malignant_probability_spans_its_range(demo, outputs):
    score = malignant(demo.card, outputs["probabilities"])
    assert score.min() < 0.05
    assert score.max() > 0.95
    assert ((score > 0.2) & (score < 0.8)).sum() >= 5


def test_the_depth_spans_at_least_two_millimetres(outputs):
    low, high = np.percentile(outputs["depth_mm"], (5, 95))
    assert high - low >= 2.0
    assert low > 0


def test_the_attention_varies_within_tiles(outputs):
    low, high = np.percentile(outputs["attention"], (5, 95))
    assert low < 0.2
    assert high > 0.8
    assert (np.ptp(outputs["attention"], axis=(1, 2)) > 0.1).all()


def test_every_class_is_likely_for_some_tile(outputs):
    assert (outputs["probabilities"].max(0) > 0.4).all()


def test_patient_data_and_a_measured_depth_move_the_probabilities(demo, outputs):
    features, unknown = outputs["features"], demo.golden.patients[0]
    before = demo.head.probabilities(features, unknown)
    for patient in demo.golden.patients[1:]:
        assert np.abs(demo.head.probabilities(features, patient) - before).max() > 0.05
    deeper = demo.head.with_depth(features, outputs["depth_mm"], 8.0)
    assert np.abs(demo.head.probabilities(deeper, unknown) - before).max() > 0.05


def test_golden_outputs_are_the_engines(demo):
    actual = load_engine(demo, "openvino").engine.infer(demo.golden.tiles)
    np.testing.assert_allclose(actual["probabilities"], demo.golden.outputs["probabilities"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(actual["depth_mm"], demo.golden.outputs["depth_mm"], rtol=0, atol=1e-4)


def test_golden_host_probabilities_are_the_heads_for_the_golden_patients(demo):
    golden = demo.golden
    for row, patient in enumerate(golden.patients):
        host = demo.head.probabilities(golden.outputs["features"][row : row + 1], patient)
        np.testing.assert_allclose(host[0], golden.host_probabilities[row], rtol=0, atol=1e-12)
    np.testing.assert_allclose(golden.host_probabilities[0], golden.outputs["probabilities"][0], rtol=0, atol=1e-6)
    assert np.abs(golden.host_probabilities[1:] - golden.outputs["probabilities"][1:]).max() > 0.05


def test_fp32_engines_were_sealed_within_their_tolerance_and_without_flips(demo):
    for engine in ("torch", "openvino", "onnxruntime"):
        row = demo.parity_of(engine, "fp32")
        assert (row.tiles, row.decision_flips) == (32, 0)
        assert row.max_dp <= demo.card.tolerances["fp32"].dp
        assert row.max_dmm <= demo.card.tolerances["fp32"].dmm


def test_drawing_is_repeatable_and_tiles_differ():
    first, again = (draw_tile(np.random.default_rng(1), 64) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != draw_tile(np.random.default_rng(2), 64)).mean() > 0.05


@pytest.mark.slow
def test_writing_it_again_gives_the_packaged_model(tmp_path, demo):
    """To 1e-4: the weights' last bits depend on the machine's arithmetic, and a random backbone amplifies them.

    On two threads, as `make demo-model` does: with another number the search ends at another network.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "mminfer_export.demo_bundle", str(tmp_path / "demo.mminfer")]
    subprocess.run(command, env=environment, check=True)
    again = open_bundle(tmp_path / "demo.mminfer")
    assert comparable(again.card) == comparable(demo.card)
    np.testing.assert_array_equal(again.golden.tiles, demo.golden.tiles)
    for name in ("probabilities", "depth_mm"):
        np.testing.assert_allclose(again.golden.outputs[name], demo.golden.outputs[name], rtol=0, atol=1e-4)
    np.testing.assert_allclose(again.golden.host_probabilities, demo.golden.host_probabilities, rtol=0, atol=1e-4)
