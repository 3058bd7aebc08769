"""The learning curves show what has values."""

import io

import pytest
from PIL import Image

from melanoma_infer.training.curves import learning_curves
from melanoma_infer.training.learner import EpochFigures


@pytest.mark.parametrize(("auc", "depth", "panels"), [(0.9, 0.3, 3), (0.9, None, 2), (None, 0.3, 2), (None, None, 1)])
def test_a_panel_without_a_value_is_left_out(auc, depth, panels):
    losses = dict.fromkeys(
        ("train_loss", "train_class_loss", "train_depth_loss", "loss", "class_loss", "depth_loss"), 1.0
    )
    history = [EpochFigures(epoch=each, **losses, auc=auc, depth_mae_mm=depth) for each in (1, 2)]
    with Image.open(io.BytesIO(learning_curves(history, history[0]))) as picture:
        assert picture.width == pytest.approx(11 / 3 * 130 * panels, abs=2)
