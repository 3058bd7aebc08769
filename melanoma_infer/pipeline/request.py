"""What a caller asks for: one slide, and what holds for all slides of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from melanoma_infer.errors import MminferError
from melanoma_infer.patients.case import SlideCase
from melanoma_infer.runtime.privacy import REDACTED, readable, slide_name
from melanoma_infer.settings import Settings
from melanoma_infer.slides import open_slide
from melanoma_infer.slides.choice import ReaderChoice
from melanoma_infer.slides.slide import Slide

Progress = Callable[[int, int], None]
"""Called after each tile of a slide with the number of tiles done and the number of all."""


@dataclass(frozen=True)
class RunStep:
    """How far a run over many slides is."""

    slide: int
    """Number of the slide, from 1."""
    doing: Literal["tiles", "write"]
    """"tiles": a tile is done; "write": all are, and files are being written. A skipped slide has no tiles."""
    tiles_done: int = 0
    tiles: int = 0
    """Number of all tiles of the slide; 0 for "write"."""


RunProgress = Callable[[RunStep], None]
"""Called after each tile, and when a slide's tiles are done."""


@dataclass(frozen=True)
class SlideRequest:
    """One slide to be scored, and what is said about it."""

    path: Path
    case: SlideCase
    settings: Settings
    reader: ReaderChoice = "auto"
    """Who decodes the tiles. No number depends on it."""
    fault: MminferError | None = None
    """Why the slide is not opened: what the search for slides found out about it."""

    def open(self) -> Slide:
        """The slide.

        Raises:
            the fault, and what open_slide raises.
        """
        if self.fault is not None:
            raise self.fault
        return open_slide(self.path)

    def message(self, error: MminferError, *, hide_names: bool) -> str:
        """What to say about an error of this slide: without names of files, where its id is not its file's name."""
        text = str(error)
        if hide_names or self.case.id != slide_name(self.path):
            for name in error.names:
                text = text.replace(name, REDACTED)
        return readable(text)


@dataclass(frozen=True)
class RunOptions:
    """What holds for all slides of a run."""

    hide_names: bool = False
    """Write digests in place of names."""
    overwrite: bool = False
    """Score finished slides again."""
    full_digest: bool = False
    """Identify slides by all their bytes."""
