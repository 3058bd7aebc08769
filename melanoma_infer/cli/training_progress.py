"""How far a training is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from melanoma_infer.cli.progress import Clock, duration

if TYPE_CHECKING:
    from melanoma_infer.training.experiment import Job
    from melanoma_infer.training.fit import Step


@dataclass
class TrainingPace:
    """Where a training is, from the steps that it told."""

    jobs: tuple[str, ...]
    """Names of the networks, in the order in which they are trained."""
    epochs: int
    """Of each network, at most."""
    clock: Clock = time.monotonic
    _job: str = ""
    _step: Step | None = None
    _first: tuple[int, float] | None = field(default=None)
    """The first step that was told, in batches of this network, and when: what was resumed took no time."""

    def take(self, told: tuple[Job, Step]) -> None:
        """Count a step."""
        job, step = told
        if job.name != self._job:
            self._job, self._first = job.name, None
        self._step = step
        if self._first is None:
            self._first = (self._done, self.clock())

    @property
    def _done(self) -> int:
        assert self._step is not None
        return (self._step.epoch - 1) * self._step.batches + self._step.batch

    @property
    def left_s(self) -> float | None:
        """Seconds to the end if no network stops early; validation is part of the time of the batches before it."""
        if self._step is None or self._first is None or self._done <= self._first[0]:
            return None
        per_batch_s = (self.clock() - self._first[1]) / (self._done - self._first[0])
        others = len(self.jobs) - 1 - self.jobs.index(self._job)
        whole = self.epochs * self._step.batches
        return per_batch_s * (whole - self._done + others * whole)

    def words(self) -> list[str]:
        """The network if there are several, its epoch and batch, the losses, and the time left."""
        step = self._step
        if step is None:
            return []
        words = [f"{self._job} ({self.jobs.index(self._job) + 1} of {len(self.jobs)})"] if len(self.jobs) > 1 else []
        words += [f"epoch {step.epoch} of {self.epochs}", f"batch {step.batch} of {step.batches}"]
        if step.last is not None and step.best is not None:
            words.append(f"validation loss {step.last.loss:.3f} (lowest {step.best.loss:.3f}, epoch {step.best.epoch})")
        if self.left_s:
            words.append(f"at most {duration(self.left_s)} left")
        return words

    def line(self, width: int) -> str:
        """`words`, without those that have no room."""
        words = self.words()
        while len(words) > 1 and len(", ".join(words)) > width:
            words.pop()
        return ", ".join(words)[:width]
