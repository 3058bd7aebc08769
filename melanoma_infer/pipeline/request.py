"""What a caller asks for: one slide, and what holds for all slides of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from melanoma_infer.patients.case import SlideCase
from melanoma_infer.settings import Settings
from melanoma_infer.slides.choice import ReaderChoice

Progress = Callable[[int, int], None]
"""Called after each tile with the number of tiles done and the number of all."""


@dataclass(frozen=True)
class SlideRequest:
    """One slide to be scored, and what is said about it."""

    path: Path
    case: SlideCase
    settings: Settings
    reader: ReaderChoice = "auto"
    """Who decodes the tiles. No number depends on it."""


@dataclass(frozen=True)
class RunOptions:
    """What holds for all slides of a run."""

    hide_names: bool = False
    """Write digests in place of names."""
    overwrite: bool = False
    """Score finished slides again."""
    full_digest: bool = False
    """Identify slides by all their bytes."""
