"""No two engines may decide oppositely, wherever the threshold is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import Bundle, open_bundle
from melanoma_infer.card import Threshold
from melanoma_infer.engines import load_engine
from melanoma_infer.engines.parity_table import engine_band
from melanoma_infer.patients.patient import Patient, one_hot
from melanoma_infer.scoring.conclusion import conclude
from melanoma_infer.scoring.fusion import fused
from melanoma_infer.scoring.verdict import Circumstances
from melanoma_infer.settings import Settings
from melanoma_infer.verification.differences import SampleSlide
from melanoma_infer.verification.sample import Sample, drawn_sample, slide_sample
from melanoma_infer.verification.verify import Verifier, wanted_pairs

PERFECT = Circumstances(
    score=None, engine_band=0.0, aggregator="top-area-mean", unreadable=0, not_evaluated=0, non_finite=0,
    evaluable_fraction=1.0, padded_fraction=0.0, tissue_mm2=50.0, is_brightfield=True, luminance_p95=240.0,
    is_phantom=True, scale_source="slide", scale_contradiction=None, geometry_matches=True, stain=None, specimen=None,
)  # fmt: skip


def computed(bundle: Bundle, pairs, sample: Sample):
    """For each engine the tiles' probabilities, and its band."""
    unknown = one_hot(Patient(), bundle.card.patient_fields)
    probabilities, bands = [], []
    for name, precision in pairs:
        engine = load_engine(bundle, name, precision=precision).engine
        outputs = engine.infer(sample.tiles)
        probabilities.append(fused(bundle, outputs["probabilities"], outputs.get("features"), unknown))
        bands.append(engine_band(bundle, name, precision, engine.numerics.device))
    return probabilities, bands


def decisions(bundle: Bundle, slides, probabilities, bands) -> list[set[str]]:
    """The verdicts of all engines for each slide and each threshold that lies between two engines' scores."""
    found = []
    for slide in slides:
        rows = list(slide.rows)

        def verdicts(threshold: float, rows=rows, tile_mm2=slide.tile_mm2):
            at = Threshold(value=threshold, low=threshold, high=threshold, how="to hurt")
            card = bundle.card.model_copy(update={"trained": True, "threshold": at})
            return [
                conclude(each[rows], card, replace(PERFECT, engine_band=band), tile_mm2)
                for each, band in zip(probabilities, bands, strict=True)
            ]

        scores = sorted({each.malignant_score for each in verdicts(0.5)})
        thresholds = [(low + high) / 2 for low, high in pairwise(scores)] + scores
        found += [{each.verdict for each in verdicts(float(np.clip(threshold, 0, 1)))} for threshold in thresholds]
    return found


def pairs_of(bundle: Bundle):
    verified = Verifier(bundle, bundle.name, drawn_sample(bundle, 2)).run(
        wanted_pairs(bundle, ["openvino", "onnxruntime", "torch"])
    )
    return [(row.engine, row.precision) for row in verified.rows]


OPPOSITE = {"suspected", "not-detected"}


def assert_the_band_prevents_opposite_decisions(bundle, pairs, sample: Sample) -> None:
    probabilities, bands = computed(bundle, pairs, sample)
    assert any(each >= OPPOSITE for each in decisions(bundle, sample.slides, probabilities, [0.0] * len(bands)))
    assert not any(each >= OPPOSITE for each in decisions(bundle, sample.slides, probabilities, bands))


def test_engines_that_may_differ_are_indeterminate_between_their_scores():
    bundle = open_bundle("demo")
    pairs = [("openvino", "fp32"), ("onnxruntime", "fp32")]
    assert_the_band_prevents_opposite_decisions(bundle, pairs, drawn_sample(bundle, 4))


@pytest.mark.slow
def test_no_two_engines_decide_oppositely_on_fifty_phantom_slides():
    bundle = open_bundle("demo")
    pairs = pairs_of(bundle)
    assert len(pairs) >= 3
    assert_the_band_prevents_opposite_decisions(bundle, pairs, drawn_sample(bundle, 50))


@pytest.mark.slow
def test_no_two_engines_decide_oppositely_on_a_real_slide_or_any_of_its_tiles(cmu):
    """Without int8: its band was measured on drawings, and a narrow network rounds tissue, new to it, more coarsely.

    On tissue such a model's verdict is indeterminate whatever the engine says.
    """
    bundle = open_bundle("demo")
    pairs = [(engine, precision) for engine, precision in pairs_of(bundle) if precision != "int8"]
    sample = slide_sample(bundle, cmu, Settings(tile_um=256.0), threads=2)
    (whole,) = sample.slides
    each_tile = tuple(SampleSlide((row,), whole.tile_mm2) for row in whole.rows)
    assert len(each_tile) > 10
    assert_the_band_prevents_opposite_decisions(bundle, pairs, replace(sample, slides=(whole, *each_tile)))
