"""No two engines may decide oppositely, wherever the cut is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from melanoma_infer.bundle import Bundle, open_bundle
from melanoma_infer.card import Cut
from melanoma_infer.conclusion import conclude
from melanoma_infer.engines import load_engine
from melanoma_infer.fusion import fused
from melanoma_infer.parity_table import engine_band
from melanoma_infer.patients import Patient, one_hot
from melanoma_infer.verdict import Evidence
from melanoma_infer.verification.sample import drawn_sample
from melanoma_infer.verification.verify import Verifier, wanted_pairs

PERFECT = Evidence(
    score=None, engine_band=0.0, aggregator="hottest-area", unreadable=0, non_finite=0, evaluable_fraction=1.0,
    padded_fraction=0.0, tissue_mm2=50.0, is_brightfield=True, luminance_p95=240.0, is_phantom=True,
    scale_source="slide", geometry_matches=True, stain=None, specimen=None,
)  # fmt: skip


def computed(bundle: Bundle, pairs, slides: int):
    """The slides, and for each engine the tiles' probabilities and its band."""
    sample = drawn_sample(bundle, slides)
    unknown = one_hot(Patient(), bundle.card.patient_fields)
    probabilities, bands = [], []
    for name, precision in pairs:
        engine = load_engine(bundle, name, precision=precision).engine
        outputs = engine.infer(sample.tiles)
        probabilities.append(fused(bundle, outputs["probabilities"], outputs.get("features"), unknown))
        bands.append(engine_band(bundle, name, precision, engine.numerics.device))
    return sample.slides, probabilities, bands


def decisions(bundle: Bundle, slides, probabilities, bands) -> list[set[str]]:
    """The verdicts of all engines for each slide and each cut that lies between two engines' scores."""
    found = []
    for slide in slides:
        rows = list(slide.rows)

        def verdicts(cut: float, rows=rows, tile_mm2=slide.tile_mm2):
            at = Cut(value=cut, low=cut, high=cut, how="to hurt")
            card = bundle.card.model_copy(update={"trained": True, "cut": at})
            return [
                conclude(each[rows], card, replace(PERFECT, engine_band=band), tile_mm2)
                for each, band in zip(probabilities, bands, strict=True)
            ]

        scores = sorted({each.malignant_score for each in verdicts(0.5)})
        cuts = [(low + high) / 2 for low, high in pairwise(scores)] + scores
        found += [{each.verdict for each in verdicts(float(np.clip(cut, 0, 1)))} for cut in cuts]
    return found


def pairs_of(bundle: Bundle):
    verified = Verifier(bundle, bundle.name, drawn_sample(bundle, 2)).run(
        wanted_pairs(bundle, ["openvino", "onnxruntime", "torch"])
    )
    return [(row.engine, row.precision) for row in verified.rows]


OPPOSITE = {"suspected", "not-detected"}


def assert_the_band_prevents_opposite_decisions(bundle, pairs, slides: int) -> None:
    drawn, probabilities, bands = computed(bundle, pairs, slides)
    assert any(each >= OPPOSITE for each in decisions(bundle, drawn, probabilities, [0.0] * len(bands)))
    assert not any(each >= OPPOSITE for each in decisions(bundle, drawn, probabilities, bands))


def test_engines_that_may_differ_are_indeterminate_between_their_scores():
    assert_the_band_prevents_opposite_decisions(
        open_bundle("demo"), [("openvino", "fp32"), ("onnxruntime", "fp32")], slides=4
    )


@pytest.mark.slow
def test_no_two_engines_decide_oppositely_on_fifty_phantom_slides():
    bundle = open_bundle("demo")
    pairs = pairs_of(bundle)
    assert len(pairs) >= 3
    assert_the_band_prevents_opposite_decisions(bundle, pairs, slides=50)
