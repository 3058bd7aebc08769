"""How a scan session takes pixels, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from melanoma_infer.errors import UsageError
from melanoma_infer.pipeline.engine_queue import OnTile
from melanoma_infer.scan.frames import Channels


@dataclass(frozen=True)
class ScanOptions:
    """How a session takes pixels, and what it says about the slide."""

    id: str = "scan"
    """The slide's name in every output."""
    case_id: str | None = None
    """The patient's case, which may have several slides."""
    channels: Channels = "RGB"
    """Order of the channels of every frame; with four, the last is alpha: 0 where nothing was scanned."""
    overlap: Literal["same", "first"] = "same"
    """Of a place that arrives twice. "same": its pixels must be the same, else `push` fails. "first": those that arrive
    first count, so that the result depends on the order."""
    when_full: Literal["block", "raise"] = "block"
    """What `push` does while the engine is behind: wait, or raise ScanBusyError and take nothing."""
    waiting_tiles: int | None = None
    """Tiles that may wait for the engine before `push` blocks or raises. None: twice as many as the engine computes at
    once, if they fit a quarter of memory_mib."""
    memory_mib: int = 1024
    """What the pixels of incomplete and waiting tiles and the tissue plane may use, in MiB. The engine and the results
    are not counted."""
    on_tile: OnTile | None = None
    """Called with each tile's result, in the engine's thread. What it raises ends this session, and no other."""
    is_phantom: bool = False
    """Whether the slide is a drawn phantom."""

    def __post_init__(self) -> None:
        """Require known words and possible numbers.

        Raises:
            UsageError: an option is not one of these.
        """
        if not isinstance(self.id, str):
            raise UsageError(f"ScanOptions(id={self.id!r}): give the slide's name as a string.")
        for name, word, known in (
            ("overlap", self.overlap, ("same", "first")), ("when_full", self.when_full, ("block", "raise")),
        ):  # fmt: skip
            if word not in known:
                raise UsageError(f"ScanOptions({name}={word!r}): choose from {', '.join(known)}.")
        for name, number in (("waiting_tiles", self.waiting_tiles), ("memory_mib", self.memory_mib)):
            if number is not None and not (isinstance(number, int) and number > 0):
                raise UsageError(f"ScanOptions({name}={number!r}): give a whole number from 1 on.")


@dataclass(frozen=True)
class ScanProgress:
    """How far a scan is."""

    scanned_px: int
    scanned_fraction: float | None
    """Of the whole scan; None if its size is not known."""
    tiles_scored: int
    tiles_waiting: int
    memory_bytes: int
    """What the session's pixels use."""
