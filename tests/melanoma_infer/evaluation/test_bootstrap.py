"""The patient bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from melanoma_infer.evaluation.bootstrap import auc_interval, interval, patient_bootstrap


def test_the_spread_of_a_mean_is_its_standard_error():
    """Of 200 patients with one value each: σ/√n."""
    values = np.random.default_rng(0).normal(size=200)
    drawn = patient_bootstrap(lambda rows: float(values[rows].mean()), [str(i) for i in range(200)])
    assert len(drawn) == 1000
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.1)


def test_the_rows_of_a_patient_are_drawn_together():
    """Ten copies of each patient's row tell nothing new: the spread stays that of 50 patients."""
    once = np.random.default_rng(0).normal(size=50)
    values, patients = np.repeat(once, 10), [str(i // 10) for i in range(500)]
    drawn = patient_bootstrap(lambda rows: float(values[rows].mean()), patients)
    assert drawn.std() == pytest.approx(once.std() / np.sqrt(50), rel=0.1)


def test_samples_without_the_figure_are_left_out_and_none_gives_no_interval():
    drawn = patient_bootstrap(lambda rows: float("nan") if 0 in rows else 1.0, ["a", "b"], draws=400)
    assert set(drawn.tolist()) == {1.0}
    assert len(drawn) == pytest.approx(100, abs=30)  # a quarter of the samples is b twice
    assert interval(np.array([])) is None
    assert auc_interval(np.array([True, True]), np.array([0.1, 0.2]), ["a", "b"]) is None


def test_the_interval_is_of_percentiles():
    assert interval(np.arange(0, 1001.0)) == pytest.approx((25.0, 975.0))
