"""How far a training is, told with a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace

from melanoma_infer.cli.training_progress import TrainingPace
from melanoma_infer.training.fit import Step
from melanoma_infer.training.learner import EpochFigures


def figures(epoch: int, loss: float) -> EpochFigures:
    return EpochFigures(epoch, 1.0, 1.0, 0.0, loss, loss, 0.0, None, None)


class Clock:
    """A clock in seconds that only moves when it is told to."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def told(pace: TrainingPace, clock: Clock, name: str, epochs: range, seconds: float) -> None:
    """Four batches an epoch, each of so many seconds."""
    for epoch in epochs:
        last = figures(epoch - 1, 1 / epoch) if epoch > 1 else None
        for batch in range(1, 5):
            clock.seconds += seconds
            pace.take((SimpleNamespace(name=name), Step(epoch, batch, 4, last, last)))


def test_the_time_left_is_that_of_all_epochs_that_are_left():
    clock = Clock()
    pace = TrainingPace(("model",), 50, clock)
    assert pace.words() == []
    told(pace, clock, "model", range(1, 4), 10.0)
    assert pace.left_s == 47 * 4 * 10.0
    assert pace.words() == [
        "epoch 3 of 50", "batch 4 of 4", "validation loss 0.333 (lowest 0.333, epoch 2)", "at most 32 min left",
    ]  # fmt: skip


def test_epochs_that_were_trained_before_take_no_time():
    clock = Clock()
    pace = TrainingPace(("model",), 50, clock)
    told(pace, clock, "model", range(41, 43), 10.0)
    assert pace.left_s == 8 * 4 * 10.0


def test_of_several_networks_those_that_follow_are_counted():
    clock = Clock()
    pace = TrainingPace(("fold-1", "fold-2", "fold-3"), 10, clock)
    told(pace, clock, "fold-1", range(1, 11), 1.0)
    told(pace, clock, "fold-2", range(1, 2), 2.0)
    assert pace.left_s == (9 * 4 + 10 * 4) * 2.0
    assert pace.line(200).startswith("fold-2 (2 of 3), epoch 1 of 10, batch 4 of 4")
    assert pace.line(30) == "fold-2 (2 of 3), epoch 1 of 10"
