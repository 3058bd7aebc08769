"""The demo bundle: small, honest about itself, and right about drawings that it has never seen."""

from pathlib import Path

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.bundle.contents import PACKAGED
from melanoma_infer.engines import load_engine
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.phantom.mark import GENERATOR
from melanoma_infer.phantom.styles import HEADLINE_STYLES
from melanoma_infer.phantom.tiles import draw_tile, phantom_case, place_tile
from mminfer_export.card_toml import read_training_card

UNSEEN = 77_000_000
"""First of the seeds; `make demo-model` draws other ones."""


@pytest.fixture(scope="module")
def demo():
    return open_bundle("demo")


@pytest.fixture(scope="module")
def cases(demo):
    """Tiles of 24 cases in styles that it was not trained on."""
    found = [phantom_case(seed, HEADLINE_STYLES) for seed in range(UNSEEN, UNSEEN + 24)]
    um_per_px = demo.card.tile_side_um / demo.card.tile_px
    return [(case, place_tile(case, 0, demo.card.tile_px, um_per_px)) for case in found]


@pytest.fixture(scope="module")
def outputs(demo, cases):
    return load_engine(demo, "openvino").engine.infer(np.stack([draw_tile(*each) for each in cases]))


def malignant(card, probabilities):
    return probabilities[:, list(card.malignant_columns)].sum(1)


def test_it_is_smaller_than_20_mb():
    assert sum(path.stat().st_size for path in (PACKAGED / "demo.mminfer").iterdir()) < 20_000_000


def test_its_card_is_the_one_it_was_trained_with_and_says_what_it_learned_from(demo):
    trained, asked = demo.card, read_training_card(Path(__file__).parents[2] / "docs" / "demo-card.toml")
    measured = ("trained", "training_data", "threshold", "cam_scale", "region_threshold", "limits")
    assert trained.model_copy(update={name: getattr(asked, name) for name in measured}) == asked
    assert (trained.trained, trained.domain, trained.undocumented) == (True, "phantom", None)
    assert trained.training_data.startswith(f"Phantoms ({GENERATOR}), styles A, B, C, D, seed 1: drawn, not tissue")
    assert "validation slides" in trained.threshold.how
    assert trained.limits.startswith(asked.limits)


def test_it_has_the_precisions_that_users_of_a_cpu_choose_from(demo):
    assert {"fp32", "int8"} <= set(demo.precisions)


def test_it_tells_a_melanoma_from_other_skin(demo, cases, outputs):
    shown = np.array([tile.shows == "melanoma" for _, tile in cases])
    score = malignant(demo.card, outputs["probabilities"])
    assert 5 < shown.sum() < 20
    assert ((score >= demo.card.threshold.value) == shown).mean() >= 0.8


def test_it_measures_thickness(cases, outputs):
    true = np.array([tile.breslow_mm if tile.surface_in_tile else np.nan for _, tile in cases], float)
    known = true <= 2.5
    assert known.sum() >= 4
    assert np.abs(outputs["depth_mm"] - true)[known].mean() < 0.4


def test_its_map_is_where_the_lesion_is(demo, cases, outputs):
    """The strongest places of tiles with a melanoma are on it."""
    from melanoma_infer.phantom.labels import Label, draw_labels

    on = []
    for (case, tile), cam in zip(cases, outputs["cam"][:, 0], strict=True):
        if tile.shows == "melanoma":
            labels = draw_labels(case.scene, tile.rect, tile.um_per_px)
            share = (labels >= Label.MELANOMA_IN_SITU).reshape(16, 32, 16, 32).mean((1, 3))
            on.append(share.ravel()[np.argsort(cam.ravel())[-5:]].mean() > 0.2)
    assert np.mean(on) >= 0.8


def test_patient_data_and_a_measured_depth_move_the_outcome(demo, outputs):
    """Older and ulcerated, and deeper: the outcome that the drawings' patients have is likelier."""
    features, columns = outputs["features"], list(demo.card.outcome_columns)
    malignant_columns = list(demo.card.malignant_columns)

    def likelihood(rows, **values):
        p = demo.head.probabilities(rows, one_hot(Patient(values), demo.card.patient_fields))
        return float((p[:, columns].sum(1) / p[:, malignant_columns].sum(1)).mean())

    young = likelihood(features, age="under_40", ulceration="no")
    assert likelihood(features, age="70_and_over", ulceration="yes") > young + 0.02
    thin, thick = (demo.head.with_depth(features, outputs["depth_mm"], mm) for mm in (0.6, 4.0))
    assert likelihood(thick) > likelihood(thin) + 0.02


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


def test_fp32_engines_were_sealed_within_their_tolerance_and_without_flips(demo):
    for engine in ("torch", "openvino", "onnxruntime"):
        row = demo.parity_of(engine, "fp32")
        assert row.decision_flips == 0
        assert row.max_dp <= demo.card.tolerance_of("fp32").dp
        assert row.max_dmm <= demo.card.tolerance_of("fp32").dmm
