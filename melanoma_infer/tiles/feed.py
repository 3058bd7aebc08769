"""How an engine is fed with tiles: a record that is known before there is anything to read."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_infer.tiles.native import TakeFrame


@dataclass(frozen=True)
class Feed:
    """How an engine is fed with tiles."""

    readers: int
    """Reading threads, from `reader_count`. Each has a handle of its own, because OpenSlide's errors latch."""
    ahead: int = 1
    """Tiles to prefetch; at least two for each thread."""
    take_frame: TakeFrame | None = None
    """Gives the engine's memory for tiles; None for an engine without."""
    resizes: bool = False
    """Whether the engine takes native tiles; they are native where `native_size` says so."""
