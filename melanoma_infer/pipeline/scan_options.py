"""What a caller says about a scan in progress, required to be possible, and how far the scan is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any, Literal, get_args

from melanoma_infer.errors import UsageError
from melanoma_infer.geometry import Scale, SizePx
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
        if not (isinstance(self.id, str) and self.id.strip()):
            raise UsageError(f"ScanOptions(id={self.id!r}): give the slide's name as a string.")
        if not isinstance(self.case_id, str | None):
            raise UsageError(f"ScanOptions(case_id={self.case_id!r}): give the case's name as a string, or None.")
        if not (self.on_tile is None or callable(self.on_tile)):
            raise UsageError(f"ScanOptions(on_tile={self.on_tile!r}): give a function of a tile's result, or None.")
        if not isinstance(self.is_phantom, bool):
            raise UsageError(f"ScanOptions(is_phantom={self.is_phantom!r}): give True or False.")
        for name, word, known in (
            ("channels", self.channels, get_args(Channels)), ("overlap", self.overlap, ("same", "first")),
            ("when_full", self.when_full, ("block", "raise")),
        ):  # fmt: skip
            if not (isinstance(word, str) and word in known):
                raise UsageError(f"ScanOptions({name}={word!r}): choose from {', '.join(known)}.")
        for name, number in (("waiting_tiles", self.waiting_tiles), ("memory_mib", self.memory_mib)):
            if number is not None and not (_is_whole(number) and number > 0):
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


def scanner_scale(mpp_um: Any) -> Scale:
    """The scanner's µm per level-0 pixel, from one number or a pair.

    Raises:
        UsageError: it is neither. Whether it can be a slide's scale is asked elsewhere.
    """
    pair = (mpp_um, mpp_um) if _is_number(mpp_um) else mpp_um
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(_is_number(um) for um in pair)):
        raise UsageError(f"session(mpp_um={mpp_um!r}): give µm per pixel as one number, or as a pair (x, y).")
    return Scale(float(pair[0]), float(pair[1]))


def scan_size(size_l0: Any) -> SizePx | None:
    """The size of the whole scan in level-0 pixels; None if it is not known yet.

    Raises:
        UsageError: it is no pair of whole numbers from 1 on.
    """
    if size_l0 is None:
        return None
    try:
        width, height = map(index, size_l0)
    except (TypeError, ValueError):
        width = height = 0
    if width < 1 or height < 1:
        raise UsageError(f"session(size_l0={size_l0!r}): give (width, height) in pixels, whole numbers from 1 on.")
    return SizePx(width, height)


def require_kind(name: str, value: object, kind: type) -> None:
    """Require an argument of `Scorer.session` to be of a kind, or None.

    Raises:
        UsageError: it is something else.
    """
    if value is not None and not isinstance(value, kind):
        wanted = "a mapping, such as a dict" if kind is Mapping else f"a {kind.__name__}"
        raise UsageError(f"session({name}=…) was given a {type(value).__name__}. Give {wanted}.")


def frame_place(x_l0: Any, y_l0: Any) -> tuple[int, int]:
    """The place of a frame's left upper pixel.

    Raises:
        UsageError: it is not in whole pixels.
    """
    try:
        return index(x_l0), index(y_l0)
    except TypeError:
        raise UsageError(f"push(…, {x_l0!r}, {y_l0!r}): give the frame's place in whole level-0 pixels.") from None


def require_deadline(deadline_s: Any) -> None:
    """Require a deadline of `close` to be in seconds from 0 on, or None.

    Raises:
        UsageError: it is not.
    """
    if deadline_s is not None and not (_is_number(deadline_s) and deadline_s >= 0):  # NaN too
        raise UsageError(f"close(deadline_s={deadline_s!r}): give seconds from 0 on, or None to wait for all tiles.")


def output_folder(out: Any) -> Path | None:
    """The output folder that `close` was given, or None.

    Raises:
        UsageError: it is no path.
    """
    if out is None:
        return None
    if not isinstance(out, str | os.PathLike):
        raise UsageError(f"close(out={out!r}): give the path of an output folder, or None to write nothing.")
    return Path(out)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
