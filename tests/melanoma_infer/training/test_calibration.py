"""What a card is told about the data that its threshold was set on."""

import numpy as np

from melanoma_infer.training.calibration import chance_doubt

PATIENTS = [str(i) for i in range(40)]


def test_a_model_that_may_be_no_better_than_chance_is_said_to_be():
    positive = np.arange(40) % 2 == 0
    rng = np.random.default_rng(1)
    doubt = chance_doubt(positive, rng.random(40), PATIENTS, "tiles")
    assert doubt is not None
    assert doubt.startswith("It may be no better than chance: its AUC on the validation tiles was 0.")


def test_a_model_that_parts_the_classes_is_not_doubted():
    positive = np.arange(40) % 2 == 0
    assert chance_doubt(positive, positive + np.linspace(0, 0.5, 40), PATIENTS, "slides") is None
