"""Random bundles: outputs that can tell right from wrong, every precision within its tolerance, and honest cards."""

import numpy as np
import pytest

from melanoma_infer.bundle.bundle import open_bundle
from melanoma_infer.engines.openvino_engine import cpu_has_bf16
from melanoma_infer.errors import OutputError
from mminfer_export.calibrated_net import malignant_score
from mminfer_export.phantom_tiles import phantom_tiles
from mminfer_export.random_bundle import random_card, write_random_bundle


def test_outputs_span_their_ranges_on_the_tiles_they_are_set_on(small):
    from mminfer_export.calibrated_net import reference_outputs

    outputs = reference_outputs(small.net, small.set_on)
    score = malignant_score(outputs["probabilities"], small.net.card)
    assert score.min() <= 0.05
    assert score.max() >= 0.95
    low, high = np.percentile(score, (25, 75))
    assert high - low >= 0.2, "one odd tile's direction: all others have nearly the same answer"
    low, high = np.percentile(outputs["depth_mm"], (5, 95))
    assert high - low >= 1.9
    assert low > 0
    low, high = np.percentile(outputs["attention"], (5, 95))
    assert low < 0.2
    assert high > 0.8


def test_the_attention_tells_its_two_maps_apart(small):
    """Swapping the channels of W, or turning its kernel, must show in the answers."""
    weight = small.net.attention.weight.detach().numpy()
    for changed in (weight[:, ::-1], weight[..., ::-1], weight[..., ::-1, :], weight.swapaxes(2, 3)):
        assert np.abs(changed - weight).max() > 0.2 * np.abs(weight).max()


def test_its_card_says_that_it_is_not_trained():
    card = random_card(7, 64)
    assert (card.trained, card.domain, card.network.width) == (False, "phantom", 64)
    assert "random" in card.training_data
    assert card.name == "random-7-width-64"


def test_tiles_are_repeatable_differ_and_show_tissue():
    card = random_card(1, 4)
    first, again, other = (phantom_tiles(card, 4, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.05
    assert (first.std((1, 2, 3)) > 5).all()


def test_a_bundle_that_exists_is_not_touched(tmp_path):
    (tmp_path / "there.mminfer").mkdir()
    with pytest.raises(OutputError, match="exists"):
        write_random_bundle(tmp_path / "there.mminfer", 1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 64])
def test_every_precision_is_sealed_within_its_tolerance(tmp_path, width):
    bundle = open_bundle(write_random_bundle(tmp_path / "random.mminfer", 23, width))
    assert bundle.precisions == ("fp32", "fp16", "int8")
    wanted = {("torch", "fp32"), *((e, p) for e in ("openvino", "onnxruntime") for p in bundle.precisions)}
    if cpu_has_bf16():
        wanted.add(("openvino", "bf16"))
    assert {(row.engine, row.precision) for row in bundle.parity} == wanted
    for row in bundle.parity:
        tolerance = bundle.card.tolerance_of(row.precision)
        assert (row.decision_flips, row.p999_dp <= tolerance.dp, row.p999_dmm <= tolerance.dmm) == (0, True, True), row
